"""What lies on a patient is not the patient: pads, boli, masks, tubes and hands, laid on the phantom's cheek."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from oarlock.arrays import Mask
from oarlock.geometry.masks import Crop, bounding_box
from oarlock.geometry.skin import AIR_HU, Surroundings, laid_on
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import Phantom
from tests.fixtures.crooked import SHAPE, crooked_grid

NOISE_HU = 9.0
SIDES = ["Parotid_L", "Parotid_R"]


class Cheek:
    """The phantom's half around one parotid, and how far each voxel of its air is from the skin."""

    def __init__(self, phantom: Phantom, oar: str) -> None:
        self.sign = 1 if oar.endswith("L") else -1
        crop = phantom.masks.crop(BY_NAME[oar], 18)
        assert crop is not None
        (z, y, x), mask = crop
        wide = slice(x.start, phantom.grid.columns) if self.sign > 0 else slice(0, x.stop)
        self.hu = phantom.hu[z, y, wide].copy()
        origins = phantom.grid.origins_mm[z]
        self.grid = replace(phantom.grid, rows=self.hu.shape[1], columns=self.hu.shape[2], origins_mm=origins)
        self.organ = np.zeros(self.hu.shape, np.bool_)
        start = x.start - wide.start
        self.organ[:, :, start : start + mask.shape[2]] = mask
        box = bounding_box(self.organ)
        assert box is not None
        heights, rows, columns = (np.arange(n) * spacing for n, spacing in zip(self.hu.shape, self.grid.spacing_mm, strict=True))
        centre = [float(axis[s].mean()) for axis, s in zip((heights, rows, columns), box, strict=True)]
        self.z, self.y, self.x = (heights - centre[0])[:, None, None], (rows - centre[1])[:, None], columns - centre[2]
        pieces, _ = ndimage.label(self.hu <= AIR_HU)
        self.air = pieces == pieces[len(heights) // 2, 0, -1 if self.sign > 0 else 0]
        assert self.air.any()
        self.off_mm = ndimage.distance_transform_edt(self.air, sampling=self.grid.spacing_mm)

    def beside(self, low_mm: float, high_mm: float, half_mm: float = 30.0) -> Mask:
        """The air so far from the skin, on the organ's side, no further than half of a patch from the organ's middle."""
        patch = (np.abs(self.z) < half_mm) & (np.abs(self.y) < half_mm) & (self.sign * self.x > 0)
        return np.asarray(self.air & patch & (self.off_mm > low_mm) & (self.off_mm <= high_mm))

    def fill(self, where: Mask, hu: float) -> Mask:
        noise = np.random.default_rng(7).normal(0.0, NOISE_HU, self.hu.shape)
        self.hu[where] = (hu + noise[where]).astype(np.int16)
        return where

    def grown_into(self, laid: Mask) -> Mask:
        """What a model would draw that takes the material for a part of the organ."""
        reach = (np.abs(self.z) < 12) & (np.abs(self.y) < 12) & (self.sign * self.x > 0) & (self.sign * self.x < 60)
        return np.asarray(self.organ | (reach & (laid | (~self.air & (self.off_mm == 0) & self._outer()))))

    def _outer(self) -> Mask:
        """Tissue further out than the organ's middle."""
        return np.broadcast_to(self.sign * self.x > 0, self.hu.shape)


def share_outside(around: Surroundings, crop: Crop, *, under_skin: bool) -> float:
    counts, voxels = around.outside_by_slice(crop, under_skin=under_skin)
    return sum(counts) / voxels


def pad(cheek: Cheek) -> Mask:
    return cheek.fill(cheek.beside(0, 10), -40)


def bolus(cheek: Cheek) -> Mask:
    return cheek.fill(cheek.beside(0, 10), 10)


def mask(cheek: Cheek) -> Mask:
    return cheek.fill(cheek.beside(0, 3, half_mm=200), 80)


def mask_with_a_gap(cheek: Cheek) -> Mask:
    return cheek.fill(cheek.beside(3, 6, half_mm=200), 80)


def tube(cheek: Cheek) -> Mask:
    """As thick as a finger, along the body, with air inside; it touches the skin."""
    places = np.argwhere(cheek.beside(5.0, 8.0, half_mm=6.0))
    y, x = (float(places[:, axis].mean()) for axis in (1, 2))
    rows, columns = np.arange(cheek.hu.shape[1])[:, None] - y, np.arange(cheek.hu.shape[2]) - x
    radius = np.hypot(rows * cheek.grid.spacing_mm[1], columns * cheek.grid.spacing_mm[2])
    wall = np.broadcast_to((radius > 3.5) & (radius <= 7.0), cheek.hu.shape) & cheek.air
    return cheek.fill(np.asarray(wall), 60)


def hand(cheek: Cheek) -> Mask:
    """Flesh and bone at 4 mm from the cheek."""
    whole = cheek.fill(cheek.beside(4, 28, half_mm=40), 50)
    cheek.fill(cheek.beside(12, 20, half_mm=36), 700)
    return whole


LAID: list[Callable[[Cheek], Mask]] = [pad, bolus, mask, mask_with_a_gap, tube, hand]


def share(cheek: Cheek, drawn: Mask) -> float:
    box = bounding_box(drawn)
    assert box is not None
    crop: Crop = box, drawn[box]
    return share_outside(Surroundings(cheek.hu, cheek.grid), crop, under_skin=True)


@pytest.mark.slow
@pytest.mark.parametrize("laid", LAID, ids=lambda laid: laid.__name__)
@pytest.mark.parametrize("oar", SIDES)
def test_an_organ_that_is_drawn_into_what_lies_on_the_skin_is_told(
    oar: str, laid: Callable[[Cheek], Mask], phantom: Phantom
) -> None:
    cheek = Cheek(phantom, oar)
    material = laid(cheek)
    drawn = cheek.grown_into(material)
    assert np.count_nonzero(drawn & material) > 0.02 * np.count_nonzero(drawn)
    assert share(cheek, drawn) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("laid", LAID, ids=lambda laid: laid.__name__)
@pytest.mark.parametrize("oar", SIDES)
def test_an_organ_within_the_skin_is_not_told_whatever_lies_on_it(
    oar: str, laid: Callable[[Cheek], Mask], phantom: Phantom
) -> None:
    cheek = Cheek(phantom, oar)
    laid(cheek)
    assert share(cheek, cheek.organ) <= 0.01


def test_an_organ_drawn_into_the_air_is_told(phantom: Phantom) -> None:
    cheek = Cheek(phantom, "Parotid_L")
    assert share(cheek, np.roll(cheek.organ, 10, axis=2)) > 0.2


@pytest.mark.slow
def test_no_organ_of_the_phantom_leaves_it(phantom: Phantom) -> None:
    around = Surroundings(phantom.hu, phantom.grid)
    for oar in phantom.masks.oars:
        crop = phantom.masks.crop(oar)
        assert crop is not None
        deep = oar.name.startswith(("Eye", "Lens", "Lung", "Brain", "Spinal"))
        assert share_outside(around, crop, under_skin=not deep) <= 0.01, oar


def test_the_checks_of_a_smaller_organ_take_what_was_told_of_its_larger_box(
    phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a cut at the skin."""
    cheek = Cheek(phantom, "Parotid_L")
    z, y, x = box = bounding_box(cheek.organ)
    around = Surroundings(cheek.hu, cheek.grid)
    told = around.outside(box, under_skin=True)
    monkeypatch.setattr(Surroundings, "_not_patient", lambda *_: pytest.fail("it was computed again"))
    smaller = slice(z.start + 1, z.stop), slice(y.start, y.stop - 2), slice(x.start + 3, x.stop)
    counts, _ = around.outside_by_slice((smaller, np.ones_like(cheek.organ[smaller])), under_skin=True)
    assert counts == told[1:, :-2, 3:].sum(axis=(1, 2)).tolist()
    assert sum(counts) > 0


def test_what_was_told_of_a_box_is_not_computed_again(phantom: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    cheek = Cheek(phantom, "Parotid_L")
    box = bounding_box(cheek.organ)
    assert box is not None
    around = Surroundings(cheek.hu, cheek.grid)
    first = around.outside(box, under_skin=True)
    monkeypatch.setattr(Surroundings, "_not_patient", lambda *_: pytest.fail("it was computed again"))
    assert around.outside(box, under_skin=True) is first
    assert not first.flags.writeable


def test_in_nothing_but_air_all_is_outside_and_without_air_nothing() -> None:
    crop: Crop = (slice(5, 9), slice(5, 9), slice(5, 9)), np.ones((4, 4, 4), np.bool_)
    air, tissue = np.full(SHAPE, -1000, np.int16), np.full(SHAPE, 40, np.int16)
    for under_skin in (True, False):
        assert share_outside(Surroundings(air, crooked_grid()), crop, under_skin=under_skin) == 1.0
        assert share_outside(Surroundings(tissue, crooked_grid()), crop, under_skin=under_skin) == 0.0


def laid(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Mask:
    air = hu < AIR_HU
    return laid_on(hu, air, ndimage.distance_transform_edt(~air, sampling=spacing_mm).astype(np.float32), spacing_mm)


@pytest.mark.parametrize("pixel_mm", [1.0, 0.5])
def test_a_pad_does_not_leak_through_a_narrow_gap_into_what_is_as_dense(pixel_mm: float) -> None:
    def pixels(first_mm: int, end_mm: int) -> slice:
        return slice(int(first_mm / pixel_mm), int(end_mm / pixel_mm))

    hu = np.full((20, pixels(0, 60).stop, pixels(0, 60).stop), 60, np.int16)
    hu[:, pixels(0, 20)], hu[:, pixels(20, 30)], hu[:, pixels(30, 42), pixels(26, 34)] = (
        -1000,
        -40,
        -40,
    )  # air, a pad, a duct of 8 mm
    found = laid(hu, (1.0, pixel_mm, pixel_mm))
    assert found[:, pixels(20, 28), pixels(5, 55)].all()  # up to its surface
    assert not found[:, pixels(32, 60)].any()


@pytest.mark.parametrize(("slice_mm", "height", "leaks"), [(1.0, 14, False), (1.0, 15, True), (2.0, 6, False), (2.0, 7, True)])
def test_a_pad_does_not_leak_through_a_gap_lower_than_14_mm_into_what_is_as_dense(
    slice_mm: float, height: int, leaks: bool
) -> None:
    """Slices of 2 mm: three above and three below the middle one are 7 mm at most, so a gap of seven is not lower."""
    hu = np.full((40, 80, 80), 60, np.int16)
    hu[:, :20], hu[:, 20:30], hu[10 : 10 + height, 30:38, 24:56] = -1000, -40, -40  # air, a pad of 10 mm, a slit of 32 mm
    found = laid(hu, (slice_mm, 1.0, 1.0))
    assert found[:, 22:28, 5:-5].all()
    assert found[10 + height // 2, 31, 40] == leaks


def test_the_bare_skin_beside_a_pad_is_not_laid_on_it() -> None:
    hu = np.full((20, 60, 80), 60, np.int16)
    hu[:, :30], hu[:, 20:30, :40] = -1000, -40  # air, and a pad of 10 mm on half of the skin
    found = laid(hu, (1.0, 1.0, 1.0))
    assert found[:, 22:28, 5:35].all()
    assert not found[:, :, 45:].any()


@pytest.mark.parametrize(("hu_of_gap", "is_air"), [(-201, True), (-200, False)])
def test_a_pad_whose_values_fade_towards_a_gap_of_air_on_the_skin_ends_at_the_gap(hu_of_gap: int, is_air: bool) -> None:
    hu = np.full((20, 80, 80), 60, np.int16)
    hu[:, :20], hu[:, 20:30] = -1000, -40  # air, a pad of 10 mm
    hu[:, 25:30, 34:46] = np.linspace(-75, -120, 5)[:, None]  # it fades
    hu[:, 30:32, 34:46] = hu_of_gap
    found = laid(hu, (1.0, 1.0, 1.0))
    assert found[:, 22:24, 5:-5].all()
    assert found[:, 27:31, 38:42].all() == is_air
    assert not found[:, 33:, :].any()
