"""The phantom: a schematic person whose contours are known, and CT files that any reader takes for a scanner's."""

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import pydicom
import pytest
import scipy.ndimage
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from scipy.spatial.transform import Rotation

from oarlock.arrays import FloatArray
from oarlock.ct.series import check_headers, read_ct_series
from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OARS, Laterality, other_side
from oarlock.phantom.patient import Phantom, head_and_neck, head_and_neck_on, write_phantom
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set
from tests.fixtures import crooked, judges
from tests.fixtures.orientations import PATIENT_POSITIONS

LEFT = [oar for oar in OARS if oar.laterality is Laterality.LEFT]


def volume_ml(phantom: Phantom, name: str) -> float:
    on_slices = phantom.masks.mask(BY_NAME[name]).sum(axis=(1, 2))
    return float(on_slices @ phantom.grid.voxel_volumes_mm3) / 1000


def centre_mm(phantom: Phantom, name: str) -> FloatArray:
    indices = np.argwhere(phantom.masks.mask(BY_NAME[name])).mean(axis=0)
    return phantom.grid.to_points(indices[None])[0]


def mean_hu(phantom: Phantom, name: str, erosions: int = 0) -> float:
    mask = phantom.masks.mask(BY_NAME[name])
    if erosions:
        mask = scipy.ndimage.binary_erosion(mask, iterations=erosions)
    return float(phantom.hu[mask].mean())


def around(phantom: Phantom, name: str, spacing_mm: tuple[float, float, float], half_mm: float, turn: Rotation) -> Grid:
    """A small turned grid with its middle near an organ of the phantom."""
    dz, dy, dx = spacing_mm
    row, column, normal = turn.as_matrix().T
    slices, rows, columns = (math.ceil(2 * half_mm / step) for step in spacing_mm)
    corner = centre_mm(phantom, name) - half_mm * (row + column + normal)
    origins = corner + np.arange(slices)[:, None] * dz * normal
    return Grid(rows, columns, origins, row, column, dy, dx)


# ── the truth ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.0, 0.0, 180.0), (8.0, -5.0, 12.0)])
def test_small_organs_have_the_volume_of_their_formula_on_any_grid(phantom: Phantom, turn: tuple[float, float, float]) -> None:
    grid = around(phantom, "Eye_L", (0.7, 0.6, 0.5), 16.0, Rotation.from_euler("xyz", turn, degrees=True))
    seen = head_and_neck_on(grid)
    assert volume_ml(seen, "Eye_L") == pytest.approx(4 / 3 * math.pi * 12.7**3 / 1000, rel=0.01)
    assert volume_ml(seen, "Lens_L") == pytest.approx(4 / 3 * math.pi * 4.6 * 2.45 * 4.6 / 1000, rel=0.03)
    assert volume_ml(seen, "Eye_R") == 0


def test_volumes_are_those_of_people(phantom: Phantom, shared: Path) -> None:
    experts = defaultdict(list)
    with (shared / "data/contours/expected.csv").open() as file:
        for row in csv.DictReader(file):
            experts[row["organ"]] += [float(row[key]) for key in ("vol_onc_cc", "vol_rad_cc") if float(row[key] or 0) > 0]
    for oar in OARS:
        assert volume_ml(phantom, oar.name) == pytest.approx(median(experts[oar.paper_name]), rel=0.3), oar.name


def test_every_organ_is_drawn_and_is_one_piece(phantom: Phantom) -> None:
    for oar in OARS:
        cropped = phantom.masks.crop(oar)
        assert cropped is not None, oar.name
        assert scipy.ndimage.label(cropped[1], structure=np.ones((3, 3, 3)))[1] == 1, oar.name


@pytest.mark.parametrize("oar", LEFT, ids=str)
def test_left_is_where_x_is_larger(phantom: Phantom, oar: object) -> None:
    left = next(one for one in LEFT if one is oar)
    assert centre_mm(phantom, left.name)[0] > centre_mm(phantom, other_side(left).name)[0] + 10


def test_the_organs_stand_in_anatomical_order_from_head_to_foot(phantom: Phantom) -> None:
    downwards = ["Brain", "Eye_L", "Brainstem", "Parotid_L", "Glnd_Submand_L", "SpinalCord", "Lung_L"]
    heights = [centre_mm(phantom, name)[2] for name in downwards]
    assert heights == sorted(heights, reverse=True)


def test_a_lens_lies_in_its_eye_and_the_cord_in_its_canal(phantom: Phantom) -> None:
    masks = phantom.masks
    for inner, outer in (("Lens_L", "Eye_L"), ("Lens_R", "Eye_R"), ("SpinalCord", "SpinalCanal")):
        assert not (masks.mask(BY_NAME[inner]) & ~masks.mask(BY_NAME[outer])).any()


def test_other_organs_do_not_overlap(phantom: Phantom) -> None:
    nested = {"Lens_L", "Lens_R", "SpinalCord"}
    seen = sum(phantom.masks.mask(oar).astype(np.uint8) for oar in OARS if oar.name not in nested)
    assert np.max(seen) == 1


def test_the_cord_goes_on_where_the_brainstem_ends(phantom: Phantom) -> None:
    boxes = phantom.masks.boxes()
    brainstem, cord = boxes["Brainstem"], boxes["SpinalCord"]
    assert brainstem is not None
    assert cord is not None
    assert brainstem[0].start == cord[0].stop


def test_tissues_have_their_hounsfield_units(phantom: Phantom) -> None:
    assert mean_hu(phantom, "Brain", 2) == pytest.approx(35, abs=4)
    assert mean_hu(phantom, "SpinalCord", 1) == pytest.approx(40, abs=6)
    assert mean_hu(phantom, "Lung_L", 2) == pytest.approx(-840, abs=5)
    assert mean_hu(phantom, "Parotid_L", 2) == pytest.approx(0, abs=6)
    assert mean_hu(phantom, "Bone_Mandible") > 400
    assert mean_hu(phantom, "Lens_L") > mean_hu(phantom, "Eye_L") + 20
    assert phantom.hu[0, 0, 0] < -950


@pytest.mark.parametrize(
    ("name", "low_hu", "high_hu"),
    [
        ("Brain", -10, 75),
        ("Brainstem", 0, 75),
        ("Eye_R", -30, 110),
        ("Glnd_Submand_R", 15, 85),
        ("Lung_L", -900, -780),
        ("Lung_R", -900, -780),
        ("Parotid_R", -45, 35),
        ("SpinalCanal", -50, 90),
    ],
)
def test_an_organ_holds_nothing_but_its_own_tissue(phantom: Phantom, name: str, low_hu: int, high_hu: int) -> None:
    cropped = phantom.masks.crop(BY_NAME[name])
    assert cropped is not None
    inside = phantom.hu[cropped[0]][scipy.ndimage.binary_erosion(cropped[1])]
    assert ((inside < low_hu) | (inside > high_hu)).mean() < 0.01


def test_the_two_sides_differ(phantom: Phantom) -> None:
    flipped = phantom.masks.bits[:, :, ::-1]
    brain = phantom.masks.bit(BY_NAME["Brain"])
    here, there = (phantom.masks.bits & brain) != 0, (flipped & brain) != 0
    assert (here ^ there).sum() > 0.1 * here.sum()


@pytest.mark.slow
@pytest.mark.parametrize("position", ["HFP", "FFS", "FFP", "HFDR"])
def test_another_patient_position_shows_the_same_body(phantom: Phantom, position: str) -> None:
    row, column = (np.array(direction, dtype=np.float64) for direction in PATIENT_POSITIONS[position])
    normal = np.cross(row, column)
    middle = centre_mm(phantom, "Brainstem")
    origins = middle - 120 * row - 115 * column + np.arange(-20, 21)[:, None] * 5 * normal
    seen = head_and_neck_on(Grid(47, 61, origins, row, column, 5.0, 4.0))
    for name in ("Brainstem", "Brain", "Parotid_L"):
        assert centre_mm(seen, name) == pytest.approx(centre_mm(phantom, name), abs=1.0)


def test_the_same_seed_gives_the_same_phantom_and_another_only_other_noise() -> None:
    small = {"shape": (23, 41, 43), "spacing_mm": (15.0, 11.0, 11.5)}
    first, again, other = head_and_neck(**small), head_and_neck(**small), head_and_neck(**small, seed=1)  # type: ignore[arg-type]
    assert (first.hu == again.hu).all()
    assert (first.hu != other.hu).any()
    assert (first.masks.bits == other.masks.bits).all()
    # Noise of 9 HU on both sides: the difference of two pictures has a standard deviation of 9 √2.
    air = first.hu[:, 0].astype(float) - other.hu[:, 0]
    assert air.std() == pytest.approx(9 * math.sqrt(2), rel=0.15)


# ── the files ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TURNS = {
    "axial": np.eye(3),
    "feet first, prone": Rotation.from_euler("y", 180, degrees=True).as_matrix(),
    "oblique": Rotation.from_euler("xyz", (11, -7, 3), degrees=True).as_matrix(),
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_other_readers_see_the_same_values_in_the_same_places(tmp_path: Path, turn: FloatArray) -> None:
    grid, hu = crooked.oblique_grid(turn), crooked.crooked_hu()
    paths = write_ct_series(tmp_path, hu, grid)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    image = reader.Execute()
    assert (sitk.GetArrayViewFromImage(image) == hu).all()
    for index in ((0, 0, 0), (36, 60, 52), (5, 17, 31)):
        seen = image.TransformIndexToPhysicalPoint(index[::-1])
        assert seen == pytest.approx(grid.to_points(np.array([index], dtype=float))[0], abs=1e-4)
    one = pydicom.dcmread(paths[7])
    assert (one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) == hu[7]).all()
    assert [float(v) for v in one.ImagePositionPatient] == pytest.approx(grid.origins_mm[7])
    assert [float(v) for v in one.PixelSpacing] == [1.1, 0.9]


def test_our_own_reader_takes_the_series_without_a_warning(tmp_path: Path) -> None:
    hu = crooked.crooked_hu()
    header = check_headers(sorted(write_ct_series(tmp_path, hu, crooked.crooked_grid()), reverse=True))
    assert header.warnings == ()
    assert (read_ct_series(header).hu == hu).all()


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_dciodvfy_finds_no_error(tmp_path: Path, turn: FloatArray) -> None:
    paths = write_ct_series(tmp_path, crooked.crooked_hu(), crooked.oblique_grid(turn), patient_name="Yamada^Tarou=山田^太郎")
    assert [line for path in (paths[0], paths[-1]) for line in judges.dciodvfy(path)] == []


def test_neither_names_nor_numbers_of_the_files_follow_the_slices(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, crooked.crooked_hu(), crooked.crooked_grid())
    assert paths != sorted(paths)
    numbers = [int(pydicom.dcmread(path, specific_tags=["InstanceNumber"]).InstanceNumber) for path in paths]
    assert numbers == list(range(37, 0, -1))


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_the_patient_position_follows_from_the_grid(tmp_path: Path, position: str) -> None:
    row, column = (np.array(direction, dtype=np.float64) for direction in PATIENT_POSITIONS[position])
    origins = np.arange(3)[:, None] * np.cross(row, column)
    paths = write_ct_series(tmp_path, np.zeros((3, 4, 5), dtype=np.int16), Grid(4, 5, origins, row, column, 1.0, 1.0))
    assert pydicom.dcmread(paths[0]).PatientPosition == position


def test_overrides_set_and_remove_elements(tmp_path: Path) -> None:
    overrides = {"PatientPosition": "HFDR", "KVP": None, "GantryDetectorTilt": "-3"}
    paths = write_ct_series(tmp_path, crooked.crooked_hu(), crooked.crooked_grid(), overrides=overrides)
    one = pydicom.dcmread(paths[3])
    assert (one.PatientPosition, one.GantryDetectorTilt) == ("HFDR", -3)
    assert "KVP" not in one


def test_the_same_seed_writes_the_same_bytes_and_another_shares_no_uid(tmp_path: Path) -> None:
    hu, grid = crooked.crooked_hu(), crooked.crooked_grid()
    first, again, other = (write_ct_series(tmp_path / name, hu, grid, seed=name[0]) for name in ("a1", "a2", "b1"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    one, two = pydicom.dcmread(first[0]), pydicom.dcmread(other[0])
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert one[keyword].value.startswith("2.25.")
        assert one[keyword].value != two[keyword].value


def test_a_volume_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    grid = crooked.crooked_grid()
    with pytest.raises(ValueError, match="shape"):
        write_ct_series(tmp_path, np.zeros((2, 2, 2), dtype=np.int16), grid)
    with pytest.raises(ValueError, match="too large"):
        write_ct_series(tmp_path, np.full(grid.shape, 32000, dtype=np.int16), grid)


def test_the_written_phantom_comes_with_its_contours(phantom: Phantom, tmp_path: Path) -> None:
    part = slice(70, 80)
    grid = Grid(
        phantom.grid.rows,
        phantom.grid.columns,
        phantom.grid.origins_mm[part],
        phantom.grid.row_direction,
        phantom.grid.column_direction,
        phantom.grid.row_spacing_mm,
        phantom.grid.column_spacing_mm,
    )
    slab = Phantom(phantom.hu[part], grid, OARMasks(OARS, phantom.masks.bits[part].copy()))
    images, reference = write_phantom(tmp_path, slab)
    assert judges.dciodvfy(reference) == []
    dataset = pydicom.dcmread(reference)
    assert dataset.StructureSetLabel == "PHANTOM"
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == [oar.name for oar in OARS]
    assert dataset.FrameOfReferenceUID == pydicom.dcmread(images[0]).FrameOfReferenceUID
    header = check_headers(images)
    read, _, *_ = rois_to_masks(read_structure_set(reference), header, {oar: i for i, oar in enumerate(OARS, start=1)})
    assert (read.bits == slab.masks.bits).all()
