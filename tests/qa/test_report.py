"""The report: what it says, in which words, and never NaN."""

import json
import math
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pytest

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.qa.checks.finding import Finding, Level
from oarlock.qa.lattice import Lattice
from oarlock.qa.measures import Measured, measure
from oarlock.qa.report import QAReport, Remarks, Source, compare, job_report
from tests.fixtures.crooked import SHAPE, SPACING_MM, crooked_grid

approx = partial(pytest.approx, abs=5e-5)
"""Reports are rounded to four decimals."""

BRAINSTEM, CORD, LEFT, RIGHT = (BY_NAME[name] for name in ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R"))

KEYS = [
    "oar",
    "matched_roi",
    "presence",
    "tolerance_mm",
    "tolerance_rounded_mm",
    "surface_dsc",
    "surface_dsc_unrounded",
    "volumetric_dsc",
    "hausdorff_95_mm",
    "mean_surface_distance_mm",
    "added_path_length_mm",
    "predicted_volume_ml",
    "reference_volume_ml",
    "reason",
]
"""Of docs/api.md."""


def masks_of(shape: tuple[int, int, int] = SHAPE, **boxes: tuple[slice, slice, slice] | None) -> OARMasks:
    masks = OARMasks.empty([BY_NAME[name] for name in boxes], shape)
    for name, box in boxes.items():
        if box is not None:
            masks.bits[box] |= masks.bit(BY_NAME[name])
    return masks


def report_of(predicted: OARMasks, reference: OARMasks, grid: Grid, **options: Any) -> QAReport:
    options.setdefault("matched_rois", {oar: f"ROI of {oar}" for oar in reference.oars})
    return compare(
        predicted,
        reference,
        grid,
        predicted_source=Source("2.25.1", "OARLOCK"),
        reference_source=Source("2.25.2", "RS"),
        **options,
    )


def entry(report: QAReport, oar: OAR) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in report.to_json()["oars"] if item["oar"] == oar.name)
    return found


BOX = np.s_[5:20, 10:40, 10:30]


def test_two_equal_sets_score_one_and_no_distance(crooked_grid: Grid) -> None:
    masks = masks_of(Brainstem=BOX)
    found = entry(report_of(masks, masks, crooked_grid), BRAINSTEM)
    assert found["presence"] == "both"
    assert found["surface_dsc"] == found["surface_dsc_unrounded"] == found["volumetric_dsc"] == found["volume_ratio"] == 1.0
    assert found["hausdorff_95_mm"] == found["mean_surface_distance_mm"] == found["added_path_length_mm"] == 0.0
    assert found["predicted_volume_ml"] == approx(15 * 30 * 20 * math.prod(SPACING_MM) / 1000)
    assert found["reason"] is None


def test_a_shift_of_one_slice_is_measured_in_millimetres_of_that_axis(crooked_grid: Grid) -> None:
    found = entry(report_of(masks_of(Brainstem=np.s_[6:21, 10:40, 10:30]), masks_of(Brainstem=BOX), crooked_grid), BRAINSTEM)
    assert found["centre_distance_mm"] == approx(2.5)
    assert found["hausdorff_mm"] == approx(2.5)
    assert found["one_sided_slice_share"] == approx(2 / 16)
    assert found["volumetric_dsc"] == approx(14 / 15)


@pytest.mark.parametrize(
    ("predicted", "reference", "presence"),
    [(BOX, None, "predicted_only"), (None, BOX, "reference_only"), (None, None, "neither")],
)
def test_what_one_side_did_not_draw_has_a_reason_and_no_numbers(
    predicted: Any, reference: Any, presence: str, crooked_grid: Grid
) -> None:
    found = entry(report_of(masks_of(Brainstem=predicted), masks_of(Brainstem=reference), crooked_grid), BRAINSTEM)
    assert found["presence"] == presence
    assert found["reason"].startswith("Brainstem ")
    numbers = [
        "surface_dsc",
        "surface_dsc_unrounded",
        "volumetric_dsc",
        "hausdorff_95_mm",
        "mean_surface_distance_mm",
        "volume_ratio",
    ]
    assert [found[key] for key in numbers] == [None] * 6
    assert (found["predicted_volume_ml"] > 0, found["reference_volume_ml"] > 0) == (predicted is not None, reference is not None)


def test_the_reason_tells_an_unmatched_roi_from_an_empty_one_and_an_unknown_organ(crooked_grid: Grid) -> None:
    drawn, empty = masks_of(Brainstem=BOX), masks_of(Brainstem=None)
    unmatched = entry(report_of(drawn, OARMasks.empty([], SHAPE), crooked_grid, matched_rois={}), BRAINSTEM)
    assert "has no ROI that can be used in the reference" in unmatched["reason"]
    assert "is empty in the reference" in entry(report_of(drawn, empty, crooked_grid), BRAINSTEM)["reason"]
    unknown = entry(report_of(OARMasks.empty([CORD], SHAPE), drawn, crooked_grid), BRAINSTEM)
    assert "has no ROI that can be used in the prediction" in unknown["reason"]


def test_every_organ_that_either_side_knows_is_listed_once_in_the_order_of_the_house(crooked_grid: Grid) -> None:
    report = report_of(masks_of(Parotid_R=BOX, SpinalCord=BOX), masks_of(SpinalCord=BOX, Brainstem=BOX), crooked_grid)
    assert [score.oar.name for score in report.scores] == ["Brainstem", "Parotid_R", "SpinalCord"]


def test_the_json_is_that_of_the_contract_and_strict(crooked_grid: Grid) -> None:
    report = report_of(
        masks_of(Brainstem=BOX, Parotid_L=None),
        masks_of(Brainstem=BOX, Parotid_R=BOX),
        crooked_grid,
        unmatched=("PTV70",),
        ambiguous=("SC",),
    )
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(content)[:7] == [
        "definition",
        "series_instance_uid",
        "predicted",
        "reference",
        "passed",
        "oars",
        "unmatched_reference_rois",
    ]
    assert content["definition"] == "surface-dsc/1"
    assert content["reference"] == {"sop_instance_uid": "2.25.2", "label": "RS"}
    assert content["unmatched_reference_rois"] == ["PTV70"]
    assert content["ambiguous_reference_rois"] == ["SC"]
    for item in report.to_json()["oars"]:
        assert set(KEYS) <= set(item)
        assert {type(value) for value in item.values()} <= {str, float, int, bool, dict, list, type(None)}


def test_an_organ_on_the_last_slice_is_flagged_as_cut(crooked_grid: Grid) -> None:
    cut, whole = masks_of(SpinalCord=np.s_[0:20, 10:40, 10:30]), masks_of(SpinalCord=BOX)
    found = entry(report_of(cut, whole, crooked_grid), CORD)
    assert (found["predicted_cut_by_scan"], found["reference_cut_by_scan"]) == (True, False)


def test_a_site_may_set_its_own_tolerance_and_the_report_says_so(crooked_grid: Grid) -> None:
    masks = masks_of(Brainstem=BOX)
    found = entry(report_of(masks, masks, crooked_grid, tolerances_mm={BRAINSTEM: 1.0}), BRAINSTEM)
    # Of the distances that voxels of 2.5 × 1.1 × 0.9 mm can have, 0.9 and 1.1 are equally near to 1.0; the smaller is taken.
    assert (found["tolerance_mm"], found["tolerance_rounded_mm"]) == (1.0, approx(0.9, abs=0.2000001))
    assert found["tolerance_source"] == "the site's own"


def test_unevenly_spaced_slices_have_no_rounded_tolerance_and_say_why() -> None:
    heights = np.array([0, 2, 4, 7, 9, 12.0])
    grid = Grid(
        20, 21, np.stack([0 * heights, 0 * heights, heights], axis=1), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.1, 0.9
    )
    masks = masks_of((6, 20, 21), Brainstem=np.s_[1:4, 5:15, 5:15])
    found = entry(report_of(masks, masks, grid), BRAINSTEM)
    assert found["surface_dsc"] is None
    assert found["tolerance_rounded_mm"] is None
    assert "not evenly spaced" in found["reason"]
    assert found["surface_dsc_unrounded"] == 1.0


def test_masks_of_another_grid_are_refused(crooked_grid: Grid) -> None:
    with pytest.raises(ValueError, match="on the grid"):
        report_of(masks_of((3, 4, 5), Brainstem=None), masks_of(Brainstem=None), crooked_grid)


def test_a_jobs_report_holds_every_comparison_and_the_checks(crooked_grid: Grid) -> None:
    masks = masks_of(Brainstem=BOX)
    one = report_of(masks, masks, crooked_grid)
    check = Finding("organ.volume", "Brainstem", Level.RED, "too small", 1.0, 22.5, 36.2, "ml")
    content = json.loads(json.dumps(job_report("1.2.3", [one, one], [check]), allow_nan=False))
    assert (content["definition"], content["series_instance_uid"], len(content["comparisons"])) == ("surface-dsc/1", "1.2.3", 2)
    assert content["comparisons"][0]["series_instance_uid"] == "1.2.3"
    assert content["checks"][0]["level"] == "red"
    assert job_report("1.2.3", [], [])["comparisons"] == []


def test_a_score_of_two_cropped_masks_is_that_of_the_whole_report(crooked_grid: Grid) -> None:
    predicted, reference = masks_of(Parotid_L=np.s_[6:21, 11:40, 9:30]), masks_of(Parotid_L=BOX)
    whole = entry(report_of(predicted, reference, crooked_grid), LEFT)
    crop = np.s_[5:21, 10:40, 9:30]
    sides = predicted.mask(LEFT)[crop], reference.mask(LEFT)[crop]
    part = measure(*sides, lattice=Lattice.upright(len(sides[0]), SPACING_MM), tolerance_mm=LEFT.tolerance_mm)
    assert part.surface_dsc == approx(whole["surface_dsc"])
    assert part.hausdorff_95_mm == approx(whole["hausdorff_95_mm"])
    assert part.added_path_length_mm == approx(whole["added_path_length_mm"])
    assert part.centre_distance_mm == approx(whole["centre_distance_mm"])


def test_an_organ_that_was_read_in_part_has_volumes_and_no_scores() -> None:
    brain, eye = BY_NAME["Brain"], BY_NAME["Eye_L"]
    masks = OARMasks.empty([brain, eye], crooked_grid().shape)
    masks.bits[3:9, 10:20, 10:20] |= masks.bit(brain) | masks.bit(eye)
    remarks = Remarks({brain: "3 of its 9 contours are left out"})
    report = compare(
        masks,
        masks,
        crooked_grid(),
        matched_rois={brain: "Brain", eye: "Eye_L"},
        predicted_source=Source("1.2", "a"),
        reference_source=Source("1.3", "b"),
        reference_remarks=remarks,
    )
    whole, in_part = sorted(report.scores, key=lambda score: score.oar == brain)
    assert in_part.presence == "read_in_part"
    assert in_part.reason == "Brain is not scored: in the reference, 3 of its 9 contours are left out."
    volumes = {"predicted_volume_ml": 1.485, "reference_volume_ml": 1.485}  # 6 × 10 × 10 voxels of 2.475 mm³
    assert asdict(in_part.measured) == approx(asdict(Measured(**volumes, predicted_slices=6, reference_slices=6)))
    assert whole.surface_dsc == 1


def test_an_roi_that_is_hollow_is_not_called_empty() -> None:
    brain = BY_NAME["Brain"]
    masks = OARMasks.empty([brain], crooked_grid().shape)
    masks.bits[3:9, 10:20, 10:20] |= masks.bit(brain)
    report = compare(
        masks,
        OARMasks.empty([brain], masks.shape),
        crooked_grid(),
        matched_rois={brain: "Brain"},
        predicted_source=Source("1.2", "a"),
        reference_source=Source("1.3", "b"),
        reference_remarks=Remarks(hollow=frozenset({brain})),
    )
    told = "Brain has contours in the reference that enclose no voxel, so there is nothing to compare with."
    assert report.scores[0].reason == told


def test_an_entry_names_the_roi_of_each_side(crooked_grid: Grid) -> None:
    stem = masks_of(Brainstem=np.s_[5:9, 5:9, 5:9])
    report = report_of(stem, stem, crooked_grid, matched_rois={BRAINSTEM: "STEM"}, predicted_rois={BRAINSTEM: "Brainstem_AI"})
    entry = report.to_json()["oars"][0]
    assert (entry["matched_roi"], entry["predicted_roi"]) == ("STEM", "Brainstem_AI")


def test_an_organ_that_several_rois_of_the_reference_claim_says_so(crooked_grid: Grid) -> None:
    ours, nothing = masks_of(Brainstem=np.s_[5:9, 5:9, 5:9]), OARMasks.empty([], SHAPE)
    claimed = Remarks(contested={BRAINSTEM: ("Brainstem", "STEM")})
    report = report_of(ours, nothing, crooked_grid, reference_remarks=claimed)
    said = "Brainstem is claimed by 2 ROIs in the reference, of which none was used, so there is nothing to compare with."
    assert report.to_json()["oars"][0]["reason"] == said
