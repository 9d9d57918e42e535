"""One scan laid on another.

An affine map found by the correlation of their CT around some landmarks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from model_export.transferred.scans import F32, Image, Point, Scan, to_image

WINDOW_HU: Final = (-200.0, 600.0)
ITERATIONS: Final = 30
SEED: Final = 7  # of the voxels that are compared, where not all are
SLACK_MM: Final = 40.0
"""How much more of a scan that is laid on another is shown: the search looks no further."""
LEAST_LANDMARKS: Final = 3
"""From fewer a turn cannot be told."""
FAILED: Final = 0.01
"""The correlation that is reported where the two scans do not overlap enough to be compared."""

Transform = Any  # SimpleITK's


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A part of a scan around some landmarks.

    Its CT in the window, what of it is known, and the landmarks (x, y, z) in mm.
    """

    image: Image
    mask: Image
    landmarks: tuple[Point, ...]


def surroundings(
    scan: Scan, landmarks: Sequence[Point], margin_mm: tuple[Point, Point], *, slack_mm: float = 0.0
) -> Surroundings:
    """What lies around landmarks.

    From so far below them to so far above, x, y and z each, and so much more on every side.

    :raises ValueError: where none of it is known.
    """
    low = np.min(landmarks, axis=0) - margin_mm[0] - slack_mm
    high = np.max(landmarks, axis=0) + margin_mm[1] + slack_mm
    box = tuple(
        slice(max(0, int(first / step)), min(count, int(last / step) + 2))
        for first, last, step, count in zip(low[::-1], high[::-1], scan.spacing_mm, scan.hu.shape, strict=True)
    )
    known = scan.known[box]
    if not known.any():
        raise ValueError(f"{scan.name}: nothing is known around the landmarks")
    first = (box[0].start, box[1].start, box[2].start)
    image = to_image(_windowed(scan.hu[box]), scan.spacing_mm, first=first)
    return Surroundings(image, to_image(known.astype(np.uint8), scan.spacing_mm, first=first), tuple(landmarks))


def _windowed(hu: F32) -> F32:
    return np.clip(hu, *WINDOW_HU).astype(np.float32)


def lay_on(fixed: Surroundings, moving: Surroundings, *, compared: float = 1.0) -> tuple[Transform, float]:
    """The affine map from the fixed scan to the moving one.

    From place to place, with the correlation that it reaches.

    :param compared: the share of the voxels that are compared, always the same ones.
    """
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    transform = _first_guess(fixed.landmarks, moving.landmarks)
    search = sitk.ImageRegistrationMethod()
    search.SetMetricAsCorrelation()
    search.SetMetricFixedMask(fixed.mask)
    search.SetMetricMovingMask(moving.mask)
    if compared < 1.0:
        search.SetMetricSamplingStrategy(search.RANDOM)
        search.SetMetricSamplingPercentage(compared, SEED)
    search.SetInterpolator(sitk.sitkLinear)
    search.SetOptimizerAsRegularStepGradientDescent(2.0, 0.02, ITERATIONS, relaxationFactor=0.6)
    search.SetOptimizerScalesFromPhysicalShift()
    search.SetNumberOfThreads(1)
    search.SetInitialTransform(transform, True)
    try:
        search.Execute(fixed.image, moving.image)
    except RuntimeError:  # too few of their known voxels overlap
        return transform, FAILED
    return transform, -float(search.GetMetricValue())


def _first_guess(fixed: Sequence[Point], moving: Sequence[Point]) -> Transform:
    """The rigid map that takes landmarks to landmarks, as an affine one; of fewer than three, a shift."""
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    if len(fixed) < LEAST_LANDMARKS:
        return anchored(sitk.AffineTransform(3), _middle(fixed), _middle(moving))
    flat = [[float(value) for point in points for value in point] for points in (fixed, moving)]
    rigid = sitk.LandmarkBasedTransformInitializer(sitk.VersorRigid3DTransform(), *flat)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(rigid.GetMatrix())
    transform.SetTranslation(rigid.GetTranslation())
    transform.SetCenter(rigid.GetCenter())
    return transform


def _middle(points: Sequence[Point]) -> Point:
    x, y, z = (float(value) for value in np.mean(points, axis=0))
    return x, y, z


def anchored(transform: Transform, here: Point, there: Point) -> Transform:
    """The same turn and stretch, moved to join two places.

    One of the fixed scan falls on one of the moving scan.
    """
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    moved = sitk.AffineTransform(3)
    moved.SetMatrix(transform.GetMatrix())
    moved.SetCenter(here)
    moved.SetTranslation([to - of for to, of in zip(there, here, strict=True)])
    return moved


def carried(labels: Mapping[str, Image], transform: Transform | None, grid: Image) -> dict[str, F32]:
    """Labels of the moving scan on the fixed one's grid.

    As shares in [0, 1], (z, y, x). Without a transform the labels are of the same scan.
    """
    import SimpleITK as sitk  # noqa: N813 - as everybody calls it

    transform = transform or sitk.Transform()
    return {
        name: sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32))
        for name, image in labels.items()
    }
