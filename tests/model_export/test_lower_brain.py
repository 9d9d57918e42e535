"""The lower brain by others' contours: within soft tissue, up to where one map still fits, refused where they disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_export.datasets.training_file import CHANNEL, Case, to_codes
from model_export.transferred.brain import HIGHEST_MM, TOP_MM, lower_brain, with_lower_brain
from model_export.transferred.scans import Scan
from model_export.transferred.votes import TransferredScan, Votes
from tests.model_export.conftest import made_case

pytestmark = pytest.mark.slow

SHAPE, SPACING = (30, 24, 26), (2.5, 4.0, 4.0)
BRAINSTEM = (50.0, 48.0, 20.0)  # x, y, z in mm: slice 8
TOP = int((BRAINSTEM[2] + TOP_MM) / SPACING[0])
WHOLE = (slice(0, 30), slice(0, 24), slice(0, 26))
BRAIN = (slice(3, 28), slice(5, 20), slice(6, 20))


def made_scan() -> Scan:
    """Soft tissue with a plate of bone through the brain's place, and unknown CT behind it."""
    hu = np.full(SHAPE, 35.0, np.float32)
    hu[:, 12] = 900.0
    known = np.ones(SHAPE, np.bool_)
    known[:, 18:] = False
    return Scan("pt_1", "train", hu, known, SPACING, {})


def made_votes(*shifts: int) -> TransferredScan:
    shares = np.zeros((len(shifts), *SHAPE), np.uint8)
    for share, shift in zip(shares, shifts, strict=True):
        share[BRAIN[0], BRAIN[1], slice(BRAIN[2].start + shift, BRAIN[2].stop + shift)] = 255
    votes = Votes(shares, (0, 0, 0), tuple("abc"[: len(shifts)]), (0.5,) * len(shifts))
    return TransferredScan("pt_1", {"Brainstem": BRAINSTEM}, {"Brain": votes})


def case_of(scan: Scan) -> Case:
    return replace(
        made_case(), ct=to_codes(scan.hu, scan.known), labels=np.zeros((3, *SHAPE), np.uint8), label_factor=1, spacing_mm=SPACING
    )


def test_contours_that_agree_become_a_label_without_bone_and_without_what_is_not_known() -> None:
    found = with_lower_brain(case_of(made_scan()), made_scan(), WHOLE, made_votes(0, 0, 1))
    assert found.channels[-1] == CHANNEL["Brain"]
    assert found.labelled_slices[-1] == (0, TOP)
    expected = np.zeros(SHAPE, np.bool_)
    expected[3 : TOP + 1, 5:12, 6:20] = True  # the larger piece; the plate of bone parts it from rows 13 to 17
    assert np.array_equal(found.labels[-1] > 0, expected)


def test_a_label_lies_where_its_case_was_cut_out_of_the_scan() -> None:
    box = (slice(2, 30), slice(4, 24), slice(3, 26))
    scan = made_scan()
    case = replace(case_of(scan), ct=to_codes(scan.hu[box], scan.known[box]), labels=np.zeros((3, 28, 20, 23), np.uint8))
    found = with_lower_brain(case, scan, box, made_votes(0, 0))
    assert found.labelled_slices[-1] == (0, TOP - 2)
    assert np.argwhere(found.labels[-1]).min(axis=0).tolist() == [1, 1, 3]


def test_it_goes_on_to_the_upper_brain_where_that_begins_near_enough() -> None:
    for begins_mm, joined in ((BRAINSTEM[2] + HIGHEST_MM, True), (BRAINSTEM[2] + HIGHEST_MM + 2 * SPACING[0], False)):
        begins = int(begins_mm / SPACING[0])
        upper = np.zeros(SHAPE, np.bool_)
        upper[begins:, 5:11, 6:20] = True
        case = case_of(made_scan()).with_label("Brain", upper, (begins, 29))
        found = with_lower_brain(case, made_scan(), WHOLE, made_votes(0, 0))
        assert len(found.channels) == len(case.channels)
        assert found.labelled_slices[-1] == ((0, 29) if joined else (begins, 29))
        assert np.array_equal(found.labels[-1][begins:], case.labels[-1][begins:])
        assert found.labels[-1][begins - 1].any() == joined


def test_contours_that_disagree_and_those_left_out_say_nothing() -> None:
    assert lower_brain(made_scan(), made_votes(-6, 1, 6), 17, left_out={"b"}) is None
    case = case_of(made_scan())
    assert with_lower_brain(case, made_scan(), WHOLE, made_votes(0, 0), left_out={"a", "b"}) is case
