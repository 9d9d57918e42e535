"""A finding names the slices on which the fault was made."""

from dataclasses import replace

import numpy as np
import pytest

from oarlock.geometry.masks import OARMasks, voxels_per_slice
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import Phantom, head_and_neck
from oarlock.qa.checks.finding import Finding, Level, Slices
from oarlock.qa.plausibility import check_masks

Found = dict[tuple[str, str | None], Finding]


@pytest.fixture(scope="module")
def small() -> Phantom:
    return head_and_neck(shape=(153, 120, 128), spacing_mm=(2.5, 3.90625, 3.90625))


def findings(phantom: Phantom, masks: OARMasks) -> Found:
    found = check_masks(masks, phantom.grid, hu=phantom.hu)
    return {(one.code, one.oar): one for one in found if one.level is not Level.GREEN}


def span(phantom: Phantom, name: str) -> tuple[int, int]:
    crop = phantom.masks.crop(BY_NAME[name])
    assert crop is not None
    return crop[0][0].start, crop[0][0].stop - 1


@pytest.fixture(scope="module")
def faults(small: Phantom) -> Found:
    """Several faults in one patient, each of another organ."""
    masks, bits = small.masks, small.masks.bits.copy()
    whole = OARMasks(masks.oars, bits)

    def clear(name: str, where: slice = slice(None)) -> None:
        bits[where] &= ~masks.bit(BY_NAME[name])

    clear("Bone_Mandible", slice(80, None))  # a flat end towards the head
    clear("SpinalCord", slice(None, 40))  # the lower part is missing
    clear("SpinalCanal", slice(span(small, "SpinalCanal")[1] - 9, None))  # the cord's canal begins lower
    clear("Eye_L")
    clear("OpticNrv_R")
    bits[110:114, 60:70, 60:70] |= masks.bit(BY_NAME["OpticNrv_R"])  # one piece
    bits[60:62, 60:66, 60:66] |= masks.bit(BY_NAME["OpticNrv_R"])  # a smaller one
    low, high = span(small, "Parotid_L")
    upper = bits[low : low + 3]
    upper[(upper & masks.bit(BY_NAME["Parotid_L"])) != 0] |= masks.bit(BY_NAME["Glnd_Submand_L"])
    assert high > low + 3
    air = bits[low : low + 2, :4, :4]
    air |= masks.bit(BY_NAME["Parotid_R"])  # in the corner of two slices
    return findings(small, whole)


@pytest.mark.slow
def test_a_flat_end_is_on_the_last_slice_before_the_cut(faults: Found, small: Phantom) -> None:
    low, high = span(small, "Bone_Mandible")
    assert low < 80 <= high
    assert faults["organ.flat_face", "Bone_Mandible"].slices == Slices(79, 79, 79)


def test_a_missing_lower_part_goes_from_the_end_of_the_organ_to_that_of_the_scan(faults: Found) -> None:
    assert faults["organ.incomplete", "SpinalCord"].slices == Slices(40, 0, 40)


def test_a_gap_is_between_the_two_ends(faults: Found, small: Phantom) -> None:
    top, foot = span(small, "SpinalCanal")[1] - 10, span(small, "Brainstem")[0]
    assert faults["organ.gap", "SpinalCanal"].slices == Slices(top, top, foot)


def test_of_pieces_the_smaller_ones_are_named(faults: Found) -> None:
    assert faults["organ.islands", "OpticNrv_R"].slices == Slices(60, 60, 61)


def test_an_overlap_is_where_both_are(faults: Found, small: Phantom) -> None:
    low = span(small, "Parotid_L")[0]
    found = faults["organs.overlap", "Parotid_L"].slices
    assert found is not None
    assert (found.first, found.last) == (low, low + 2)
    crop = small.masks.crop(BY_NAME["Parotid_L"])
    assert crop is not None
    assert found.best == low + int(np.argmax(voxels_per_slice(crop[1][:3])))


def test_what_is_outside_of_the_patient_or_at_the_edge_is_named_by_its_slices(faults: Found, small: Phantom) -> None:
    low = span(small, "Parotid_L")[0]
    assert faults["scan.cut_at_side", "Parotid_R"].slices == Slices(low, low, low + 1)
    skin = faults["organ.skin", "Parotid_R"].slices
    assert skin is not None
    assert skin.first <= low <= skin.last


def test_an_organ_that_is_not_drawn_is_looked_for_where_its_neighbours_put_it(faults: Found, small: Phantom) -> None:
    low, high = span(small, "Eye_L")
    found = faults["organ.empty", "Eye_L"].slices
    assert found is not None
    assert low <= found.best <= high


def test_head_and_feet_are_told_from_the_patient_not_from_the_order_of_slices(small: Phantom) -> None:
    """The same patient with slices from head to feet and rows from back to front."""
    grid, bits = small.grid, small.masks.bits[::-1, ::-1].copy()
    lowest = grid.origins_mm + (grid.rows - 1) * grid.row_spacing_mm * grid.column_direction
    turned = replace(grid, origins_mm=lowest[::-1], column_direction=-grid.column_direction)
    assert turned.orientation().flipped[0]
    last = grid.shape[0] - 1
    bits[last - 39 :] &= ~small.masks.bit(BY_NAME["SpinalCord"])
    found = check_masks(OARMasks(small.masks.oars, bits), turned)
    [incomplete] = [one for one in found if (one.code, one.oar) == ("organ.incomplete", "SpinalCord")]
    assert incomplete.slices == Slices(last - 40, last - 40, last)
