"""A model folder on public scans: what a job delivers, where the CT is known."""

from dataclasses import replace

import numpy as np
import pytest

from model_export.compare import delivered
from model_export.edges import grid_of
from model_export.judge import Shown, finer_hu, judge, shown_openkbp
from model_export.transferred.scans import Scan
from oarlock.inference.models import load
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import head_and_neck
from oarlock.segmentation.segment import Model
from tests.worker.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow  # the module loads torch

BRAIN, JAW = BY_NAME["Brain"], BY_NAME["Bone_Mandible"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def scan(model: Model) -> Scan:
    """A phantom whose contours are what the model delivers on it."""
    phantom = head_and_neck(shape=(30, 60, 64), spacing_mm=(9.0, 7.0, 7.0), seed=1)
    hu = phantom.hu.astype(np.float32)
    bare = Scan("pt_1", "validation", hu, np.ones(hu.shape, np.bool_), (9.0, 7.0, 7.0), {})
    drawn = delivered(model, phantom.hu, grid_of(bare, 1))
    return replace(bare, masks={oar.name: drawn.mask(oar) for oar in drawn.oars})


def test_what_a_job_delivers_is_compared_on_the_scans_own_pixels(model: Model, scan: Scan) -> None:
    rows = {row.oar: row for row in judge(model, shown_openkbp(scan))}
    assert set(rows) == {BRAIN.name, JAW.name}
    assert all((row.case, row.source, row.dsc, row.surface_dsc) == ("pt_1", "openkbp", 1.0, 1.0) for row in rows.values())
    assert rows[JAW.name].reference_cm3 == pytest.approx(scan.masks[JAW.name].sum() * 9 * 7 * 7 / 1000, abs=1e-3)
    assert rows[JAW.name].human_dsc is None


def test_a_matched_scan_is_shown_finer_and_the_radiographer_is_scored_beside(model: Model, scan: Scan) -> None:
    hu = np.rint(finer_hu(scan.hu, 4)).astype(np.int16)
    drawn = delivered(model, hu, grid_of(scan, 4))
    oncologist = {JAW.name: drawn.mask(JAW)}
    radiographer = {JAW.name: np.roll(drawn.mask(JAW), 1, axis=2)}
    shown = Shown(scan, "0522c0001", "matched", 4, (oncologist, radiographer))
    assert shown.spacing_mm == (9.0, 1.75, 1.75)
    [row] = judge(model, shown)
    assert (row.case, row.dsc) == ("0522c0001", 1.0)
    assert row.human_dsc is not None
    assert 0.5 < row.human_dsc < 1.0


def test_only_known_ct_is_compared_and_an_organ_that_is_mostly_unknown_is_left_out(model: Model, scan: Scan) -> None:
    slices = np.flatnonzero(scan.masks[JAW.name].any(axis=(1, 2)))
    known = np.ones(scan.hu.shape, np.bool_)
    known[: slices[len(slices) // 2]] = False  # half of the mandible, and a part of the brain, which scans may cut
    cut = {BRAIN.name: scan.masks[BRAIN.name] & known, JAW.name: scan.masks[JAW.name]}
    [row] = judge(model, shown_openkbp(replace(scan, known=known, masks=cut)))  # the brain is drawn below, too
    assert (row.oar, row.dsc) == (BRAIN.name, 1.0)
    little = np.zeros_like(cut[BRAIN.name])
    little[tuple(np.argwhere(cut[BRAIN.name])[0])] = True  # 0.4 ml
    assert not list(judge(model, shown_openkbp(replace(scan, known=known, masks={BRAIN.name: little}))))


def test_finer_ct_keeps_the_scans_own_values_as_means() -> None:
    hu = np.full((2, 12, 13), -1000, np.float32)
    hu[:, 4:, 4:] = 40  # a corner of skin
    hu[0, 8, 8] = 700
    means = finer_hu(hu, 4).reshape(2, 12, 4, 13, 4).mean(axis=(2, 4))
    assert np.abs(means - hu).max() < 1040 / 20
    assert np.array_equal(finer_hu(hu, 1), hu)
