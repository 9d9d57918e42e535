"""RTSTRUCTs of real planning systems, read by us and by independent readers: the same voxels."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import OARS
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import ROI, StructureSet, read_structure_set
from tests.fixtures.readers import read_with_dcmrtstruct2nii, read_with_plastimatch
from tests.fixtures.real_data import Unpacked


@pytest.mark.parametrize(
    ("folder", "name", "on_an_edge"),
    [("phantom_mim_rtutils", "rt.dcm", 0), ("neck_aria_visiblehuman", "RS_Body_SpinalCord.dcm", 10)],
)
def test_files_of_real_planning_systems_are_read_as_plastimatch_reads_them(
    folder: str, name: str, on_an_edge: int, shared: Path, tmp_path: Path
) -> None:
    """But for centres that lie on an edge, where each reader has its own rule."""
    (tmp_path / "ct").mkdir()
    for file in (shared / "data/dicom" / folder).glob("*.dcm"):
        if pydicom.dcmread(file, specific_tags=["Modality"]).Modality == "CT":
            shutil.copy(file, tmp_path / "ct")
    path = shared / "data/dicom" / folder / name
    theirs = read_with_plastimatch(path, tmp_path / "ct", tmp_path / "nrrd")
    found = read_structure_set(path)
    ours, _, *_ = rois_to_masks(
        found, check_headers(list((tmp_path / "ct").iterdir())), {OARS[i]: roi.number for i, roi in enumerate(found.rois)}
    )
    for i, roi in enumerate(found.rois):
        assert np.count_nonzero(theirs[roi.name]) > 0
        assert np.count_nonzero(theirs[roi.name] != ours.mask(OARS[i])) <= on_an_edge


# ── structure sets whose CT is lost ───────────────────────────────────────────────────────────────────────────────────

LARGE = {"aria15_lung1-001.dcm", "dicompyler_rtss.dcm", "mim69_pancreas-ct-cb-001.dcm", "xio_lung1-001.dcm"}
SMALL = {"monaco_box_overlap.dcm", "monaco_example_structures.dcm", "pydicom_rtstruct_nometa.dcm", "raystation_template.dcm"}
NO_META = SMALL - {"raystation_template.dcm"}
"""Without preamble or transfer syntax: dcmrtstruct2nii does not take them for RTSTRUCTs."""


def write_ct_around(structure_set: StructureSet, folder: Path) -> list[Path]:
    """A CT in the frame of reference of a structure set, with a slice wherever it has contours.

    No centre of a voxel lies on an edge: the points have at most six decimals, and the centres more.
    """
    points = np.concatenate([contour for roi in structure_set.rois for contour in roi.contours])
    z = np.unique(np.round(points[:, 2], 3))
    low, high = points.min(axis=0) - 7.3141592, points.max(axis=0) + 7
    column_spacing_mm, row_spacing_mm = 1.3708203, 1.1316624
    columns, rows = (int(n) for n in np.ceil((high - low)[:2] / (column_spacing_mm, row_spacing_mm)))
    z = np.arange(z[0], z[-1] + 0.1, np.diff(z).min())
    origins = np.stack([np.full(len(z), low[0]), np.full(len(z), low[1]), z], axis=1)
    grid = Grid(rows, columns, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), row_spacing_mm, column_spacing_mm)
    frame = {"FrameOfReferenceUID": structure_set.frame_of_reference_uid}
    return write_ct_series(folder, np.zeros(grid.shape, dtype=np.int16), grid, overrides=frame)


def laid_on(structure_set: StructureSet, files: list[Path]) -> tuple[list[ROI], OARMasks, list[str]]:
    """The ROIs that have an area, their masks in the same order, and what could not be used."""
    rois = [roi for roi in structure_set.rois if roi.contours]
    masks, warnings, *_ = rois_to_masks(structure_set, check_headers(files), {OARS[i]: roi.number for i, roi in enumerate(rois)})
    told = [warning.detail for warning in warnings if warning.code == "structure_set.roi_partly_used"]
    return rois, masks, told


def plain(name: str) -> str:
    """A name as it is left by readers that make file names of it."""
    return "".join(letter for letter in name if letter.isalnum())


TWICE = "left out: drawn twice"
OVERLAP = "its contours overlap; what two of them share counts as outside (XOR)"
TOLD = {
    # Its box is drawn three times on each slice, which XOR alone reads as once; a second time would have emptied it.
    "monaco_box_overlap.dcm": [f"ROI number 1: 6 of 9 contour(s): {TWICE}.", f"ROI number 2: in 3 plane(s) {OVERLAP}."],
    "xio_lung1-001.dcm": [f"ROI number 5: 85 of 170 contour(s): {TWICE}."],
}
LARGE_MARKS = {"plastimatch": pytest.mark.slow, "dcmrtstruct2nii": pytest.mark.long("oracle")}
READERS = {"plastimatch": read_with_plastimatch, "dcmrtstruct2nii": read_with_dcmrtstruct2nii}
SINGLE_PRECISION = {"plastimatch": 1, "dcmrtstruct2nii": 0}
"""Voxels of one ROI that a reader may get wrong: plastimatch, a centre that lies 3 nm from an edge."""


def marks_of(name: str, reader: str) -> object:
    """Three large files of three systems are enough before a commit."""
    return pytest.mark.long("files") if name == "dicompyler_rtss.dcm" else LARGE_MARKS[reader] if name in LARGE else ()


def pairs() -> list[object]:
    """Files and the readers that read them; of the large ones the second reader takes long."""
    found = [
        (name, reader) for name in sorted(LARGE | SMALL) for reader in READERS if reader == "plastimatch" or name not in NO_META
    ]
    return [pytest.param(name, reader, marks=marks_of(name, reader)) for name, reader in found]


@pytest.mark.parametrize(("name", "reader"), pairs())
def test_every_roi_of_every_planning_system_has_the_voxels_that_independent_readers_find(
    name: str, reader: str, unpacked: Unpacked, tmp_path: Path
) -> None:
    """But for one that its system drew twice, which XOR alone would empty: we use it once, and say so."""
    path = unpacked("data/dicom/rtstruct_without_ct/files.tar.xz") / name
    structure_set = read_structure_set(path)
    rois, masks, told = laid_on(structure_set, write_ct_around(structure_set, tmp_path / "ct"))
    theirs = {plain(found): mask for found, mask in READERS[reader](path, tmp_path / "ct", tmp_path / "read").items()}
    assert told == TOLD.get(name, [])
    for roi, oar in zip(rois, masks.oars, strict=True):
        mask = masks.mask(oar)
        assert mask.any()
        if not any(sentence.startswith(f"ROI number {roi.number}:") and TWICE in sentence for sentence in told):
            assert np.count_nonzero(theirs[plain(roi.name)] != mask) <= SINGLE_PRECISION[reader], roi.name
