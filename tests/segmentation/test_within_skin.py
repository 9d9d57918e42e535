"""Glands close under the skin end at the skin: on the phantom's cheek with a pad on it."""

import numpy as np

from oarlock.geometry.masks import OARMasks, bounding_box
from oarlock.geometry.skin import Surroundings
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import Phantom
from oarlock.segmentation.within_skin import within_skin
from tests.geometry.test_skin import Cheek, pad

EVERYWHERE = (slice(None), slice(None), slice(None))
PAROTID = BY_NAME["Parotid_L"]


def drawn(cheek: Cheek, mask: np.ndarray) -> OARMasks:
    masks = OARMasks.empty([PAROTID], cheek.hu.shape)
    masks.put(PAROTID, EVERYWHERE, mask)
    return masks


def test_what_is_drawn_in_a_pad_goes_and_the_organ_stays(phantom: Phantom) -> None:
    cheek = Cheek(phantom, "Parotid_L")
    material = pad(cheek)
    grown = cheek.grown_into(material)
    masks = drawn(cheek, grown)
    (notice,) = within_skin(masks, Surroundings(cheek.hu, cheek.grid))
    left = masks.mask(PAROTID)
    assert np.count_nonzero(left & material) < 0.1 * np.count_nonzero(grown & material)
    assert np.count_nonzero(left & cheek.organ) > 0.97 * np.count_nonzero(cheek.organ)
    off_ml = np.count_nonzero(grown & ~left) * float(np.prod(cheek.grid.spacing_mm)) / 1000
    assert notice.code == "contours.cut_at_skin"
    assert f"{off_ml:.2f} ml" in notice.detail


def test_an_organ_within_the_skin_is_not_touched_though_a_pad_lies_on_it(phantom: Phantom) -> None:
    cheek = Cheek(phantom, "Parotid_L")
    pad(cheek)
    masks = drawn(cheek, cheek.organ)
    assert within_skin(masks, Surroundings(cheek.hu, cheek.grid)) == []
    assert np.array_equal(masks.mask(PAROTID), cheek.organ)


def test_nothing_that_is_left_of_a_cut_gland_lies_outside(phantom: Phantom) -> None:
    cheek = Cheek(phantom, "Parotid_L")
    grown = cheek.grown_into(pad(cheek))
    masks, around = drawn(cheek, grown), Surroundings(cheek.hu, cheek.grid)
    within_skin(masks, around)
    left = masks.mask(PAROTID)
    box = bounding_box(left)
    assert box is not None
    assert sum(around.outside_by_slice((box, left[box]), under_skin=True)[0]) == 0
    assert np.count_nonzero(left & cheek.organ) > 0.9 * np.count_nonzero(cheek.organ)


def test_an_organ_that_lies_mostly_outside_is_left_to_the_checks(phantom: Phantom) -> None:
    cheek = Cheek(phantom, "Parotid_L")
    material = pad(cheek)
    masks = drawn(cheek, material)
    assert within_skin(masks, Surroundings(cheek.hu, cheek.grid)) == []
    assert np.array_equal(masks.mask(PAROTID), material)


def test_glands_that_are_looked_at_side_by_side_are_cut_as_one_after_another(phantom: Phantom) -> None:
    cheek = Cheek(phantom, "Parotid_L")
    grown = cheek.grown_into(pad(cheek))
    both = [PAROTID, BY_NAME["Glnd_Submand_L"]]
    alone, together = (OARMasks.empty(both, cheek.hu.shape) for _ in range(2))
    for masks in (alone, together):
        for oar in both:
            masks.put(oar, EVERYWHERE, grown)
    around = Surroundings(cheek.hu, cheek.grid)
    assert within_skin(together, around, at_once=2) == within_skin(alone, around)
    assert np.array_equal(together.bits, alone.bits)
    assert together.mask(PAROTID).sum() < grown.sum()
