"""Several observers: their spread beside ours, worked out by hand for slabs that overlap by known shares."""

import json
from typing import Any

import numpy as np
import pytest

from oarlock.geometry.masks import Box, OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.qa.interobserver import METRICS, OrganCrops, Range, Spread, spread
from oarlock.qa.lattice import Lattice
from oarlock.qa.measures import measure_crops
from tests.fixtures.crooked import SPACING_MM

STEM, LENS = BY_NAME["Brainstem"], BY_NAME["Lens_L"]
SHAPE = (30, 40, 41)
EVEN = Lattice.upright(SHAPE[0], SPACING_MM)


def drawn(**boxes: Box) -> OrganCrops:
    masks = OARMasks.empty([BY_NAME[name] for name in boxes], SHAPE)
    for name, box in boxes.items():
        masks.bits[box] |= masks.bit(BY_NAME[name])
    return {oar: crop for oar in masks.oars if (crop := masks.crop(oar)) is not None}


def slab(first: int, last: int) -> Box:
    return np.s_[first:last, 10:30, 5:35]


def spreads(ours: OrganCrops, *observers: OrganCrops, lattice: Lattice = EVEN) -> dict[OAR, Spread]:
    against = [
        {oar: measure_crops(ours.get(oar), one.get(oar), lattice=lattice, tolerance_mm=oar.tolerance_mm) for oar in {*ours, *one}}
        for one in observers
    ]
    return {found.oar: found for found in spread(against, observers, lattice=lattice, tolerances_mm={})}


def test_ours_and_the_observers_among_themselves_stand_side_by_side() -> None:
    # Slabs of 10 slices that start at 5 (ours), 5, 6 and 8: two that are k slices apart share 10 - k of 10.
    found = spreads(drawn(Brainstem=slab(5, 15)), *(drawn(Brainstem=slab(n, n + 10)) for n in (5, 6, 8)))[STEM]
    assert (found.observers, found.pairs) == (3, 3)
    assert found.ours["volumetric_dsc"] == Range(0.7, 0.9, 1.0)
    assert found.between["volumetric_dsc"] == Range(0.7, 0.8, 0.9)
    assert found.ours["hausdorff_95_mm"] == Range(0.0, 2.5, 7.5)
    assert found.between["hausdorff_95_mm"] == Range(2.5, 5.0, 7.5)
    assert found.within is True
    assert found.reason is None


def test_ours_is_within_where_its_median_is_that_of_the_worst_pair() -> None:
    """All three are the same: no pair of observers agrees better than ours with either of them."""
    same = drawn(Brainstem=slab(5, 15))
    found = spreads(same, same, same)[STEM]
    assert found.ours["surface_dsc"] == found.between["surface_dsc"] == Range(1.0, 1.0, 1.0)
    assert found.within is True


def test_ours_is_not_within_where_its_median_is_below_the_worst_pair() -> None:
    found = spreads(drawn(Brainstem=slab(18, 28)), drawn(Brainstem=slab(5, 15)), drawn(Brainstem=slab(6, 16)))[STEM]
    assert found.within is False


@pytest.mark.parametrize(
    ("ours", "observers", "reason"),
    [
        (drawn(Brainstem=slab(5, 15)), [drawn(Brainstem=slab(5, 15)), drawn()], "drawn by one observer only"),
        (drawn(), [drawn(Brainstem=slab(5, 15))] * 2, "not among the predicted contours"),
    ],
)
def test_what_cannot_be_compared_has_a_reason(ours: OrganCrops, observers: list[OrganCrops], reason: str) -> None:
    found = spreads(ours, *observers)[STEM]
    assert found.within is None
    assert reason in str(found.reason)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["within_observers"] is None


def test_uneven_slices_have_no_rounded_tolerance_and_the_reason_says_so() -> None:
    heights = np.cumsum(np.resize([2.0, 3.0], SHAPE[0]))
    uneven = Lattice(heights[:, None] * [1.0, 0, 0], np.full(SHAPE[0], 2.5), None, 1.1, 0.9)
    one = drawn(Brainstem=slab(5, 15))
    found = spreads(one, one, one, lattice=uneven)[STEM]
    assert found.ours["surface_dsc"] is None
    assert found.ours["volumetric_dsc"] == Range(1.0, 1.0, 1.0)
    assert "not evenly spaced" in str(found.reason)


@pytest.mark.parametrize(("ours", "within"), [(0.8, True), (0.8 - 1e-9, False), (0.9, True)])
def test_ours_is_within_the_observers_from_the_lowest_of_them_on(ours: float, within: bool) -> None:
    between = dict.fromkeys(METRICS, Range(0.8, 0.85, 0.9))
    found = Spread(STEM, 3, 3, dict.fromkeys(METRICS, Range(0.1, ours, 1.0)), between)
    assert found.within is within


def test_an_organ_that_nobody_drew_is_not_listed_and_one_that_only_we_drew_neither() -> None:
    assert spreads(drawn(Lens_L=slab(5, 6)), drawn(Brainstem=slab(5, 15)), drawn(Brainstem=slab(5, 15))).keys() == {STEM}


def test_the_order_of_the_observers_does_not_matter() -> None:
    observers = [drawn(Brainstem=slab(n, n + 10), Lens_L=slab(n, n + 2)) for n in (5, 7, 8)]
    ours = drawn(Brainstem=slab(6, 16), Lens_L=slab(6, 8))
    one, other = spreads(ours, *observers), spreads(ours, *observers[::-1])

    def flat(found: dict[OAR, Spread]) -> Any:
        return {oar: value.to_json() for oar, value in found.items()}

    assert flat(one) == flat(other)
