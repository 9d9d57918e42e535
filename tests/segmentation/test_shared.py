"""Organs that a box and its finder draw together: what counts in the box, at its faces, beyond it, and without it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oarlock.errors import ManifestInvalid
from oarlock.geometry.grid import Grid
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.manifest import ModelManifest, read_manifest
from oarlock.segmentation.resampling import Region, _box_grid, refine
from oarlock.segmentation.segment import Model, Segmentation, segment
from oarlock.segmentation.shared import FADE_MM, FAINT, Claim, ClaimKeeper, share_slabs
from oarlock.segmentation.slabs import Volume
from tests.fixtures import orientations
from tests.fixtures.orientations import voxel_centres_mm
from tests.inference.tiny_parts import denser, divided

STEM, CORD, BRAIN = (BY_NAME[name] for name in ("Brainstem", "SpinalCord", "Brain"))
GRID = orientations.ALL["HFS"]

TEXT = """
schema_version = 2

[model]
name = "shared"
version = "1"
licence = "Apache-2.0"
description = "a finder, and a box that draws the cord together with it"

[[part]]
name = "whole"
file = "whole.onnx"
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
input = { name = "hu", spacing_mm = [2.5, 2.0, 2.0], size_yx = [64, 64], padding_hu = -1000.0 }
output = { name = "probability", upscale = 2 }
oar = [{ name = "Brainstem" }, { name = "SpinalCord" }]
self_check = { slices = 4, size_yx = [64, 64], expected_means = [0.1, 0.1], tolerance = 1e-3 }

[[part]]
name = "axis"
file = "axis.onnx"
sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
look = { at = "box", around = [{ organ = "Brainstem", offset_mm = [-30.0, 0.0, 0.0] }], found_by = "whole" }
input = { name = "hu", spacing_mm = [2.5, 4.0, 4.0], size_zyx = [16, 10, 10], padding_hu = -1000.0 }
output = { name = "probability", upscale = 4 }
oar = [{ name = "SpinalCord" }, { name = "Brainstem" }]
self_check = { expected_means = [0.1, 0.1], tolerance = 1e-3 }

[owners]
Brainstem = "whole"
SpinalCord = "axis"

[shares]
SpinalCord = 0.8
"""


ALONE = "drawn by the part 'whole' alone, as the model found nothing of what it is looked for around (Brainstem)."


def manifest_of(folder: Path, text: str = TEXT) -> ModelManifest:
    for name in ("whole", "axis"):
        (folder / f"{name}.onnx").touch()
    (folder / "manifest.toml").write_text(text, encoding="utf-8")
    return read_manifest(folder)


def away_mm(grid: Grid) -> np.ndarray:
    """(z, y, x, 3) of the voxel centres from the middle of the scan."""
    return voxel_centres_mm(grid) - grid.to_points((np.array([grid.shape], dtype=np.float64) - 1) / 2)[0]


def neck(*, stem_hu: int = 200) -> np.ndarray:
    """A body with a brainstem of 200 HU, and below it a cord of 100 HU, 10 mm thick, to the scan's lower end."""
    x, y, z = np.moveaxis(away_mm(GRID), -1, 0)
    stem = (x - 2) ** 2 + y**2 + (z - 25) ** 2 < 12**2
    cord = ((x - 2) ** 2 + (y - 1) ** 2 < 5**2) & (z < 14)
    return np.select([cord, stem, (x / 22) ** 2 + (y / 30) ** 2 < 1], [100, stem_hu, 20], -1000).astype(np.int16)


def whole(hu: Volume) -> Volume:
    return denser(hu, {0: (150.0, 250.0), 1: (50.0, 150.0)}).repeat(2, axis=3).repeat(2, axis=4)


def as_the_finder(hu: Volume) -> Volume:
    return divided(denser(hu, {0: (50.0, 150.0), 1: (150.0, 250.0)}), (16, 40, 40))


def nothing(_: Volume) -> Volume:
    return np.zeros((1, 2, 16, 40, 40), np.float32)


def drawn(manifest: ModelManifest, hu: np.ndarray, axis: Callable[[Volume], Volume]) -> Segmentation:
    return segment(hu, GRID, Model(manifest, {"whole": whole, "axis": axis}, "cpu"))


def slices_mm2(found: Segmentation) -> np.ndarray:
    """The cord's area in each slice, from foot to head."""
    z = GRID.along_patient_axes()[0].positions_mm
    pixels = found.masks.mask(CORD).sum(axis=(1, 2)) * GRID.row_spacing_mm * GRID.column_spacing_mm
    return pixels[np.argsort(z)]


def test_in_the_box_the_mean_counts_and_its_share_fades_at_the_faces() -> None:
    """Finder 0.4 everywhere, box 0.8, share 0.5: 0.6 in the middle, 0.4 outside, and 0.4 + 0.5 · 0.25 · 0.4 at 2.5 mm."""
    box = refine(_box_grid(Region(*[np.zeros(3)] * 3), manifest_input((30, 10, 10)), (1.0, 1.0, 1.0)), (30, 40, 40))
    everywhere = tuple(np.arange(-60.0, 61.0, 2.0) for _ in range(3))
    claim = Claim(everywhere, np.full((61, 61, 61), 0.4, np.float32))
    grid, slabs = share_slabs({CORD: claim}, {CORD: np.full((30, 40, 40), 0.8, np.float32)}, box, {CORD: 0.5}, [0.3])
    found = np.concatenate([slab for _, slab in slabs], axis=1)[0]
    z, y, x = (axis.positions_mm for axis in grid.along_patient_axes())
    assert [(round(at[0], 6), round(at[-1], 6)) for at in (z, y, x)] == [(-63.75, 63.75), (-62.5, 62.5), (-62.5, 62.5)]
    at = {mm: int(np.argmin(np.abs(x - mm))) for mm in (-20.5, -17.5, 0.5)}
    middle = (int(np.argmin(np.abs(z))), int(np.argmin(np.abs(y))))
    assert found[middle][[at[mm] for mm in (-20.5, -17.5, 0.5)]] == pytest.approx([0.4, 0.45, 0.6])
    assert found[(0, *middle[1:], at[0.5])] == pytest.approx(0.4)
    assert np.abs(np.diff(found, axis=2)).max() <= 0.5 * 0.4 * 1.0 / FADE_MM + 1e-6  # a step of 1 mm is a tenth of the fade


def manifest_input(size: tuple[int, int, int]) -> object:
    from oarlock.segmentation.manifest import InputSpec

    return InputSpec("hu", (2.5, 4.0, 4.0), (size[1], size[2]), 1, -1000.0, size[0])


def test_an_organ_goes_on_beyond_the_box_without_step_or_gap(tmp_path: Path) -> None:
    """Where both parts say the same, each slice is that of the finder alone, but for the size of the voxels."""
    both = slices_mm2(drawn(manifest_of(tmp_path), neck(), as_the_finder))
    by_finder = TEXT.replace('SpinalCord = "axis"', 'SpinalCord = "whole"').replace("SpinalCord = 0.8", "")
    by_finder = by_finder.replace('Brainstem = "whole"', 'Brainstem = "axis"')
    alone = slices_mm2(drawn(manifest_of(tmp_path, by_finder), neck(), nothing))
    assert (both > 0)[:23].all()  # 20 mm of cord lie below the box, 40 mm in it
    inside = slice(1, 22)
    assert np.abs(both - alone)[inside].max() < 0.25 * alone[inside].mean()  # a rim of half a millimetre around 10


def test_of_what_the_box_does_not_claim_the_finders_rest_counts_at_its_faces(tmp_path: Path) -> None:
    """The finder is 0.924 sure: 0.924 (1 - 0.8 f) reaches 0.5 until f = 0.574, 5.7 mm deep in a box of 40 mm."""
    areas = slices_mm2(drawn(manifest_of(tmp_path), neck(), nothing))
    z = np.sort(away_mm(GRID)[:, 0, 0, 2])
    middle = 25 - 30  # of the box, 30 mm below the brainstem's middle
    gap = z[(areas == 0) & (z < 10)]
    assert gap.min() == pytest.approx(middle - (20 - 5.7), abs=2.5)  # slices are 2.5 mm apart
    assert gap.max() == pytest.approx(middle + (20 - 5.7), abs=2.5)
    assert np.array_equal(gap, z[(z >= gap.min()) & (z <= gap.max())])


def test_without_a_box_the_finder_draws_alone_and_says_so(tmp_path: Path) -> None:
    found = drawn(manifest_of(tmp_path), neck(stem_hu=20), nothing)
    assert [(notice.code, notice.detail) for notice in found.notices] == [
        (
            "contours.drawn_by_finder",
            f"SpinalCord: {ALONE}",
        )
    ]
    assert (slices_mm2(found) > 0)[:23].all()
    assert found.certainty[CORD].drawn_ml == pytest.approx(found.masks.volume_ml(CORD, GRID), rel=0.1)


def test_a_mirrored_scan_has_mirrored_masks(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    plain, mirrored = (drawn(manifest, hu, as_the_finder).masks for hu in (neck(), neck()[:, :, ::-1].copy()))
    assert plain.mask(CORD).any()
    assert np.array_equal(plain.mask(CORD), mirrored.mask(CORD)[:, :, ::-1])


def test_of_the_finder_only_the_voxels_around_an_organ_are_kept() -> None:
    lattice = refine(_box_grid(Region(*[np.zeros(3)] * 3), manifest_input((20, 16, 16)), (1.0, 1.0, 1.0)), (20, 32, 32))
    slabs = [(0, np.zeros((1, 8, 32, 32), np.float32)), (8, np.zeros((1, 12, 32, 32), np.float32))]
    slabs[0][1][0, 7, 10:12, 5] = 0.7
    slabs[1][1][0, 0, 11, 5] = 0.6
    slabs[1][1][0, 11, 30, 30] = FAINT / 2  # counts as 0
    keeper = ClaimKeeper([CORD], (CORD,))
    assert [first for first, _ in keeper.over(iter(slabs))] == [0, 8]
    claim = keeper.kept(lattice)[CORD]
    assert claim.values.shape == (4, 4, 3)  # 2 × 2 × 1 voxels and one layer of 0 around
    assert np.argwhere(claim.values).tolist() == [[1, 1, 1], [1, 2, 1], [2, 2, 1]]
    assert claim.on([claim.positions_mm[0][1:2], claim.positions_mm[1][1:3].mean(keepdims=True), claim.positions_mm[2][1:2]]) == (
        pytest.approx(0.7)
    )


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("SpinalCord = 0.8", "SpinalCord = 1.2", r"\[shares\] SpinalCord must be at most 1"),
        ("SpinalCord = 0.8", "SpinalCord = 0.0", r"\[shares\] SpinalCord must be greater than 0"),
        (
            "SpinalCord = 0.8",
            "Brainstem = 0.8",
            r"Brainstem: its owner must be a part that looks at a box of fixed size",
        ),
        ("SpinalCord = 0.8", "Brain = 0.8", r"\[shares\] Brain: its owner must be a part"),
        ("SpinalCord = 0.8", "Rueckenmark = 0.8", "Rueckenmark is not an organ"),
        (
            '{ name = "SpinalCord" }, { name = "Brainstem" }]\nself_check = { expected_means = [0.1, 0.1]',
            '{ name = "SpinalCord" }, { name = "SpinalCanal" }]\nself_check = { expected_means = [0.1, 0.1]',
            r"\[shares\] SpinalCanal: the part 'whole', which finds for 'axis', has no channel for it",
        ),
        (
            '{ name = "SpinalCord" }, { name = "Brainstem" }]\nself_check = { expected_means = [0.1, 0.1]',
            '{ name = "SpinalCord" }, { name = "Eye_L" }, { name = "Eye_R" }]\nself_check = { expected_means = [0.1, 0.1, 0.1]',
            r"\[shares\] Eye_L and Eye_R exclude each other: share both or neither",
        ),
    ],
)
def test_shares_that_cannot_be_are_refused_with_the_reason(old: str, new: str, reason: str, tmp_path: Path) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new)
    if "Eye_L" in new:
        text = text.replace('{ name = "SpinalCord" }]', '{ name = "SpinalCord" }, { name = "Eye_L" }]')
        text = text.replace("= [0.1, 0.1], tolerance", "= [0.1, 0.1, 0.1], tolerance").replace("0.8", "0.8\nEye_L = 0.5")
        text = text.replace('SpinalCord = "axis"', 'SpinalCord = "axis"\nEye_L = "axis"\nEye_R = "axis"')
    elif "SpinalCanal" in new:
        text = text.replace("0.8", "0.8\nSpinalCanal = 0.5")
        text = text.replace('SpinalCord = "axis"', 'SpinalCord = "axis"\nSpinalCanal = "axis"')
    with pytest.raises(ManifestInvalid, match=reason):
        manifest_of(tmp_path, text)


def test_a_share_is_in_the_hash_and_in_the_name_of_who_drew(tmp_path: Path) -> None:
    plain, ours, other = (
        manifest_of(tmp_path, TEXT.replace("SpinalCord = 0.8", share)) for share in ("", "SpinalCord = 0.8", "SpinalCord = 0.7")
    )
    assert len({plain.sha256, ours.sha256, other.sha256}) == 3
    before_there_were_shares = "495c3f82d6d706daef0742b3aa9f64a1142b5d073298564340115ad66b41e439"  # commit 3275991; jobs keep it
    assert plain.sha256 == before_there_were_shares
    assert (plain.drawn_by()["SpinalCord"][0], ours.drawn_by()["SpinalCord"][0]) == ("axis", "axis+whole")
