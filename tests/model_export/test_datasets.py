"""The two public layouts, in files made for the test."""

from __future__ import annotations

import dataclasses
import gzip
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_export.datasets.openkbp import SIDE, OpenKBPPatient, read_patient, read_patients
from model_export.datasets.released_contours import read_case, read_nrrd
from model_export.datasets.training_file import CHANNEL, HU_OF_CODE, read_cases, read_provenance, to_codes, write_cases
from model_export.prepare import Match, count_inside, labelled_slices, prepare
from model_export.transferred.brain import LowerBrains
from model_export.transferred.votes import TransferredScan, Votes, write_transferred
from tests.model_export.conftest import made_case

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


def flat(z_from_head: int, y: int, x: int) -> int:
    """The index of a voxel in the public files: [y, x, z from head to foot]."""
    return int(np.ravel_multi_index((y, x, z_from_head), (SIDE, SIDE, SIDE)))


def write_patient(root: Path, name: str, *, split: str = "train") -> Path:
    """A patient with a box of CT, and a parotid in it on the patient's left (large x), nearer to the head."""
    folder = root / "provided-data" / f"{split}-pats" / name
    folder.mkdir(parents=True)
    box = [(z, y, x) for z in range(50, 60) for y in range(20, 41) for x in range(30, 61)]
    rows = [f"{flat(*voxel)},{1040.0 + voxel[0]}" for voxel in box]
    (folder / "ct.csv").write_text(",data\n" + "\n".join(rows) + "\n")
    parotid = [f"{flat(z, y, x)}," for z in range(51, 54) for y in range(25, 29) for x in range(50, 55)]
    (folder / "LeftParotid.csv").write_text(",data\n" + "\n".join(parotid) + "\n")
    (folder / "voxel_dimensions.csv").write_text("4.1\n3.9\n2.5\n")
    return folder


def write_nrrd(path: Path, mask: npt.NDArray[np.bool_], *, encoding: str = "gzip") -> None:
    """The public layout: x fastest, spacing 1.1, 0.9, 2.5 mm."""
    z, y, x = mask.shape
    header = (
        f"NRRD0005\n# made\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: {x} {y} {z}\n"
        f"space directions: (1.1,0,0) (0,0.9,0) (0,0,2.5)\nencoding: {encoding}\nspace origin: (1,2,3)\n\n"
    )
    body = mask.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + (gzip.compress(body) if encoding == "gzip" else body))


def test_sparse_csv_turns_into_foot_to_head(tmp_path: Path) -> None:
    write_patient(tmp_path, "pt_7", split="validation")
    (patient,) = read_patients(tmp_path)
    assert (patient.name, patient.split, patient.spacing_mm) == ("pt_7", "validation", (2.5, 3.9, 4.1))
    assert patient.raw[127 - 52, 30, 45] == 1092  # slice 52 from the head
    assert patient.raw[127 - 49, 30, 45] == 0  # unknown
    assert patient.masks.keys() == {"Parotid_L"}
    assert np.argwhere(patient.masks["Parotid_L"]).min(axis=0).tolist() == [127 - 53, 25, 50]


def test_the_packed_copy_reads_as_the_public_layout(tmp_path: Path) -> None:
    write_patient(tmp_path / "public", "pt_7")
    (public,) = read_patients(tmp_path / "public")
    theirs = {name: array[::-1].transpose(1, 2, 0) for name, array in (("ct", public.raw), ("mask", public.masks["Parotid_L"]))}
    (tmp_path / "packed" / "train").mkdir(parents=True)
    np.savez(
        tmp_path / "packed" / "train" / "pt_7.npz",
        ct=theirs["ct"],
        LeftParotid=np.packbits(theirs["mask"].ravel()),
        spacing_mm=np.array([4.1, 3.9, 2.5]),
    )
    (packed,) = read_patients(tmp_path / "packed")
    assert packed.spacing_mm == public.spacing_mm
    assert (packed.raw == public.raw).all()
    assert (packed.masks["Parotid_L"] == public.masks["Parotid_L"]).all()


@pytest.mark.parametrize("encoding", ["gzip", "raw"])
def test_an_nrrd_has_x_fastest(tmp_path: Path, encoding: str) -> None:
    mask = np.zeros((3, 5, 7), np.bool_)
    mask[1, 2, 6] = True
    write_nrrd(tmp_path / "a.nrrd", mask, encoding=encoding)
    organ = read_nrrd(tmp_path / "a.nrrd")
    assert (organ.mask == mask).all()
    assert organ.spacing_mm == pytest.approx((2.5, 0.9, 1.1))


def test_another_kind_of_nrrd_is_refused(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", np.zeros((1, 1, 1), np.bool_), encoding="bzip2")
    with pytest.raises(ValueError, match="encoding bzip2"):
        read_nrrd(tmp_path / "a.nrrd")


def test_underscores_are_read_and_empty_organs_are_not_drawn(tmp_path: Path) -> None:
    organ = np.ones((2, 3, 4), np.bool_)
    folder = tmp_path / "test" / "oncologist" / "case"
    write_nrrd(folder / "Cochlea_Lt.nrrd", organ)
    write_nrrd(folder / "Brain.nrrd", ~organ)
    assert read_case(tmp_path, "case", "oncologist").keys() == {"Cochlea_L"}


def test_bytes_hold_soft_tissue_to_two_hu() -> None:
    hu = np.arange(-200, 400).astype(np.float32)
    back = HU_OF_CODE[to_codes(hu, np.ones(hu.shape, np.bool_))]
    assert np.abs(back - hu).max() <= 2.001
    assert to_codes(np.array([-3000.0, 5000.0, 0.0]), np.array([True, True, False])).tolist() == [1, 255, 0]


def test_native_pixels_are_counted_where_the_offsets_say() -> None:
    native = np.zeros((6, 40, 40), np.bool_)
    native[3, 10:13, 22] = True  # rows 10, 11, 12 of column 22
    match = Match("case", "pt_1", slice_offset=2, row_offset=-2, column_offset=2)
    counts = count_inside(native, match, (slice(0, 3), slice(1, 5), slice(3, 8)))
    # slice 1 is native slice 3; label row r of the box is native rows 4 - 2 + 2r, +1; column c is 12 + 2 + 2c, +1
    assert counts.shape == (3, 8, 10)
    assert {tuple(index): counts[tuple(index)] for index in np.argwhere(counts).tolist()} == {(1, 4, 4): 2, (1, 5, 4): 1}


def test_beyond_the_native_grid_nothing_is_inside() -> None:
    native = np.ones((2, 8, 8), np.bool_)
    counts = count_inside(native, Match("c", "p", -1, -4, 0), (slice(0, 4), slice(0, 4), slice(0, 2)))
    assert counts.any(axis=(1, 2)).tolist() == [False, True, True, False]
    assert counts.any(axis=(0, 2)).tolist() == [False] * 2 + [True] * 4 + [False] * 2


def test_a_cord_is_unlabelled_below_its_lowest_slice() -> None:
    mask = np.zeros((9, 2, 2), np.bool_)
    mask[3:6] = True
    assert labelled_slices("SpinalCord", mask, top_is_known=True) == (3, 8)
    assert labelled_slices("SpinalCord", mask, top_is_known=False) == (3, 5)
    assert labelled_slices("Parotid_L", mask, top_is_known=False) == (0, 8)


def test_prepare_joins_both_data_sets_into_one_file(tmp_path: Path) -> None:
    write_patient(tmp_path, "pt_1")
    write_patient(tmp_path, "pt_2", split="validation")
    native = np.zeros((12, 180, 260), np.bool_)
    native[4:8, 100:120, 200:220] = True
    for rater in ("oncologist", "radiographer"):
        write_nrrd(tmp_path / "contours" / "test" / rater / "0522c0226" / "Lens-Lt.nrrd", native)
    header = "case,patient,slice_offset,row_offset,column_offset\n"
    (tmp_path / "matched.csv").write_text(header + "0522c0226,pt_2,-70,0,0\n")
    prepare(tmp_path, tmp_path / "contours", tmp_path / "matched.csv", tmp_path / "cases.npz")

    first, second = read_cases(tmp_path / "cases.npz")
    assert (first.source, first.split, first.channels) == ("openkbp", "train", (CHANNEL["Parotid_L"],))
    assert first.ct.shape == (10, 21, 31)
    assert first.fraction_of_label()[first.labels].sum() == 3 * 4 * 5
    assert HU_OF_CODE[first.ct[9]].mean() == pytest.approx(90, abs=2)  # nearest to the head: slice 50 there
    assert (second.source, second.split, second.channels) == ("matched", "tuning", (CHANNEL["Lens_L"],))
    # native slices 4 to 7 are foot-to-head slices 74 to 77, and the box begins at 127 - 59 = 68
    assert np.flatnonzero(second.labels[0].any(axis=(1, 2))).tolist() == [6, 7, 8, 9]
    assert second.fraction_of_label()[second.labels].sum() == 4 * 10 * 10
    assert second.labelled_slices == ((2, 9),)  # native slice 0 to the top of the box
    assert read_provenance(tmp_path / "cases.npz")["cases"] == 2


def test_prepare_labels_the_lower_brain_of_training_scans(tmp_path: Path) -> None:
    write_patient(tmp_path, "pt_1")
    write_patient(tmp_path, "pt_2", split="validation")
    (tmp_path / "matched.csv").write_text("case,patient,slice_offset,row_offset,column_offset\n")
    share = np.full((2, 4, 6, 8), 255, np.uint8)
    votes = Votes(share, (70, 26, 40), ("0522c0014", "0522c0708"), (0.5, 0.5))
    for name in ("pt_1", "pt_2"):
        write_transferred(
            tmp_path / f"{name}.npz", TransferredScan(name, {"Brainstem": (160.0, 110.0, 72 * 2.5)}, {"Brain": votes})
        )
    train, tuning = prepare(
        tmp_path, tmp_path / "contours", tmp_path / "matched.csv", tmp_path / "cases.npz", LowerBrains(tmp_path)
    )
    assert train.channels == (CHANNEL["Parotid_L"], CHANNEL["Brain"])
    places = np.argwhere(train.labels[1])  # the box begins at slice 68, row 20, column 30
    assert (places.min(axis=0).tolist(), places.max(axis=0).tolist()) == ([2, 6, 10], [5, 11, 17])
    assert tuning.channels == (CHANNEL["Parotid_L"],)


def test_prepare_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pt_1", "pt_2", "pt_3"):
        write_patient(tmp_path, name)
    (tmp_path / "matched.csv").write_text("case,patient,slice_offset,row_offset,column_offset\n")
    call = partial(prepare, tmp_path, tmp_path / "contours", tmp_path / "matched.csv", tmp_path / "cases.npz")
    whole, read = call(), list[str]()

    def read_some(path: Path) -> OpenKBPPatient:
        read.append(path.stem)
        if len(read) == 3:
            raise KeyboardInterrupt
        return read_patient(path)

    (tmp_path / "cases.npz").unlink()
    monkeypatch.setattr("model_export.prepare.read_patient", read_some)
    with pytest.raises(KeyboardInterrupt):
        call()
    assert not (tmp_path / "cases.npz").exists()
    again = call()
    assert read == ["pt_1", "pt_2", "pt_3", "pt_3"]
    assert [case.name for case in again] == [case.name for case in whole]
    assert all(np.array_equal(ours.labels, theirs.labels) for ours, theirs in zip(again, whole, strict=True))
    assert [path.name for path in tmp_path.glob("cases*")] == ["cases.npz"]


def test_a_training_file_keeps_its_cases(tmp_path: Path) -> None:
    case = made_case()
    write_cases(tmp_path / "cases.npz", [case], {"made": True})
    (back,) = read_cases(tmp_path / "cases.npz", "train")
    for field in dataclasses.fields(case):
        before, after = getattr(case, field.name), getattr(back, field.name)
        assert np.array_equal(before, after), field.name
    assert read_cases(tmp_path / "cases.npz", "tuning") == []
