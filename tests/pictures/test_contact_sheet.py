"""The preview: the right way round for every patient position, true in mm, and silent about the patient."""

import math
import struct
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.arrays import FloatArray
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME, OAR, OARS
from oarlock.phantom.patient import Phantom
from oarlock.pictures.canvas import AMBER, Viewport, draw_cut, to_grey, to_printable
from oarlock.pictures.contact_sheet import axial_levels, contact_sheet
from oarlock.pictures.layout import volume_text
from oarlock.pictures.planes import Cut, Profiles, Scene, to_axes, to_profiles
from oarlock.pictures.slice_archive import Rendering, load_rendering, save_rendering
from tests.fixtures import crooked, orientations

pytestmark = pytest.mark.slow

MODEL = "a model 1.0 (0123456789ab)"
EYE = BY_NAME["Eye_L"]
SIZE = 240
MM_PER_PIXEL = 0.4

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def usual_png(phantom: Phantom) -> bytes:
    return contact_sheet(phantom.hu, phantom.grid, phantom.masks, model=MODEL)


def single(phantom: Phantom, *, oar: OAR | None = None, z: int | None = None, model: str = "") -> bytes:
    return Rendering.of(phantom.hu, phantom.grid, phantom.masks, model=model).single(oar=oar, z=z)


def decoded(png: bytes) -> Pixels:
    picture = cv2.imdecode(np.frombuffer(png, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture[:, :, ::-1], dtype=np.uint8)


def chunks(png: bytes) -> list[str]:
    names, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        names.append(png[at + 4 : at + 8].decode("ascii"))
        at += length + 12
    return names


def ball(grid: Grid, centre_mm: FloatArray, radius_mm: float) -> npt.NDArray[np.int16]:
    """HU of a ball of soft tissue in air, wherever the grid has its voxels."""
    distance = np.linalg.norm(orientations.voxel_centres_mm(grid) - centre_mm, axis=-1)
    return np.where(distance <= radius_mm, 200, -1000).astype(np.int16)


def three_cuts(hu: npt.NDArray[np.int16], grid: Grid) -> dict[str, Cut]:
    """The cuts through the brightest voxels' middle."""
    scene = Scene.of(hu, np.zeros(hu.shape, dtype=np.uint32), grid)
    z, y, x = np.argwhere(scene.image > 0).mean(axis=0).round().astype(int)
    # Where slices drift, planes are counted on the middle slice: there the ball of these tests has its middle too.
    return {"axial": scene.axial(z), "coronal": scene.coronal(y), "sagittal": scene.sagittal(x)}


def extent_mm(cut: Cut) -> tuple[float, float, float, float]:
    """Left, right, top and bottom edge of what is bright, in mm from the middle of the cut."""
    frame = Viewport(float(cut.across_mm[[0, -1]].mean()), float(cut.down_mm[[0, -1]].mean()), SIZE, SIZE, MM_PER_PIXEL)
    rows, columns = np.nonzero(draw_cut(cut, [], frame)[:, :, 0] > 127)
    edges = np.array([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1])
    left, right, top, bottom = (edges - SIZE / 2) * MM_PER_PIXEL
    return float(left), float(right), float(top), float(bottom)


# ── the right way round, and true in mm ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("position", orientations.PATIENT_POSITIONS)
def test_left_is_on_the_right_front_on_top_and_the_head_up(position: str) -> None:
    grid = orientations.axial(position)
    # 8 mm to the patient's left, 6 mm to the front, 15 mm to the head of the middle.
    cuts = three_cuts(ball(grid, orientations.MIDDLE_MM + np.array([8, -6, 15]), 5), grid)
    seen = {name: ((left + right) / 2, (top + bottom) / 2) for name, (left, right, top, bottom) in map_extents(cuts).items()}
    assert seen["axial"] == pytest.approx((8, -6), abs=1.0)
    assert seen["coronal"] == pytest.approx((8, -15), abs=1.0)
    assert seen["sagittal"] == pytest.approx((-6, -15), abs=1.0)


def map_extents(cuts: dict[str, Cut]) -> dict[str, tuple[float, float, float, float]]:
    return {name: extent_mm(cut) for name, cut in cuts.items()}


@pytest.mark.parametrize("name", ["HFS", "FFDR", "uneven", "oblique 30°", "gantry tilt 20°", "gantry tilt -20°"])
def test_a_ball_is_round_in_every_cut(name: str) -> None:
    grid = orientations.ALL[name]
    for cut, (left, right, top, bottom) in map_extents(three_cuts(ball(grid, orientations.MIDDLE_MM, 14), grid)).items():
        # Slices lie up to 3 mm apart, so the outermost one that still meets the ball may be 3 mm inside of its pole.
        assert right - left == pytest.approx(28, abs=1.6), cut
        assert bottom - top == pytest.approx(28 if cut == "axial" else 26.5, abs=2.6), cut


@pytest.mark.parametrize("degrees", [20.0, -20.0])
def test_a_cut_through_slices_that_drift_is_one_plane(degrees: float) -> None:
    grid = orientations.gantry_tilt(degrees)
    down_mm = (orientations.voxel_centres_mm(grid) - orientations.MIDDLE_MM) @ grid.column_direction
    hu = np.rint(10 * down_mm).astype(np.int16)
    scene = Scene.of(hu, np.zeros(hu.shape, dtype=np.uint32), grid)
    middle = scene.coronal(30).image[11:26]  # further up and down the plane leaves the slices
    # One value everywhere, but for the nearest row: half of 1.1 mm on either side.
    assert np.ptp(middle.astype(int)) <= 11


def test_the_letters_say_which_way_the_patient_lies() -> None:
    grid = crooked.crooked_grid()
    cuts = three_cuts(crooked.crooked_hu(), grid)
    assert cuts["axial"].letters == ("R", "L", "A", "P")
    assert cuts["coronal"].letters == ("R", "L", "H", "F")
    assert cuts["sagittal"].letters == ("A", "P", "H", "F")


@pytest.mark.parametrize(("flip", "same_captions"), [("HFP", True), ("FFS", False), ("FFP", False), ("turned", True)])
def test_the_contact_sheet_does_not_depend_on_how_the_slices_are_stored(
    phantom: Phantom, usual_png: bytes, flip: str, same_captions: bool
) -> None:
    hu, grid, bits = stored_as(phantom, flip)
    sheet = decoded(contact_sheet(hu, grid, OARMasks(OARS, bits), model=MODEL))
    usual = decoded(usual_png)
    if not same_captions:  # the slices are counted from the other end
        sheet, usual = without_captions(sheet), without_captions(usual)
    if flip == "turned":  # so are rows and columns in the header
        sheet, usual = sheet[96:], usual[96:]
    assert (sheet == usual).all()


def stored_as(phantom: Phantom, how: str) -> tuple[npt.NDArray[np.int16], Grid, npt.NDArray[np.uint32]]:
    """The same voxels at the same places in another order."""
    grid, hu, bits = phantom.grid, phantom.hu, phantom.masks.bits
    along, down = grid.column_spacing_mm * (grid.columns - 1), grid.row_spacing_mm * (grid.rows - 1)
    row, column = (np.array(direction) for direction in ((1.0, 0, 0), (0, 1.0, 0)))
    if how == "turned":  # rows along the patient's y, from back to front
        volumes = [volume.transpose(0, 2, 1)[:, :, ::-1] for volume in (hu, bits)]
        corners = grid.origins_mm + down * column
        turned = Grid(grid.columns, grid.rows, corners, -column, row, grid.column_spacing_mm, grid.row_spacing_mm)
        return volumes[0], turned, np.ascontiguousarray(volumes[1])
    flip_z, flip_y, flip_x = {"HFP": (1, -1, -1), "FFS": (-1, 1, -1), "FFP": (-1, -1, 1)}[how]
    corners = grid.origins_mm[::flip_z] + (down * column if flip_y < 0 else 0) + (along * row if flip_x < 0 else 0)
    flipped = Grid(grid.rows, grid.columns, corners, flip_x * row, flip_y * column, grid.row_spacing_mm, grid.column_spacing_mm)
    return hu[::flip_z, ::flip_y, ::flip_x], flipped, np.ascontiguousarray(bits[::flip_z, ::flip_y, ::flip_x])


def without_captions(sheet: Pixels) -> Pixels:
    covered = sheet.copy()
    for top in (96, 96 + 428):
        covered[top : top + 30] = 0
    return covered


# ── the contours ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_contour_runs_along_the_edge_of_the_voxels() -> None:
    grid = crooked.crooked_grid()
    masks = OARMasks.empty(OARS, grid.shape)
    masks.put(EYE, (slice(9, 20), slice(20, 41), slice(10, 31)), np.ones((11, 21, 21), dtype=bool))
    scene = Scene.of(np.full(grid.shape, -1000, dtype=np.int16), masks.bits, grid)
    frame = Viewport(20 * 0.9, 30 * 1.1, SIZE, SIZE, MM_PER_PIXEL)  # the middle of the block
    picture = draw_cut(scene.axial(15), [(masks.oars.index(EYE), EYE)], frame).astype(int)
    strength = picture[:, :, 2]
    across, down = strength[SIZE // 2], strength[:, SIZE // 2]
    # 21 voxels of 0.9 and 1.1 mm, around the middle: the line's darkest pixels are at half of that.
    for profile, half_mm in ((across, 21 * 0.9 / 2), (down, 21 * 1.1 / 2)):
        found = (np.flatnonzero(profile > 0.6 * profile.max()) + 0.5 - SIZE / 2) * MM_PER_PIXEL
        assert found[found < 0].mean() == pytest.approx(-half_mm, abs=MM_PER_PIXEL)
        assert found[found > 0].mean() == pytest.approx(half_mm, abs=MM_PER_PIXEL)


def test_every_organ_appears_in_its_colour(usual_png: bytes) -> None:
    tiles = decoded(usual_png)[96:, : 32 + 4 * 420 + 3 * 8]
    for oar in OARS:
        low, high = (np.clip(np.array(oar.colour) + step, 0, 255) for step in (-24, 24))
        near = cv2.countNonZero(cv2.inRange(tiles, low, high))
        assert near >= 4, oar.name


def test_bone_is_white_air_is_black_and_soft_tissue_in_between() -> None:
    hu = np.array([[-1000, -160, 40, 240, 2000]], dtype=np.int16)
    assert to_grey(hu).tolist() == [[0, 0, 127, 255, 255]]


# ── what is written on it ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_png_holds_no_text_and_is_of_bounded_size(usual_png: bytes) -> None:
    assert set(chunks(usual_png)) == {"IHDR", "IDAT", "IEND"}
    assert len(usual_png) < 3_000_000


def test_every_picture_says_unapproved(phantom: Phantom, usual_png: bytes) -> None:
    for png in (usual_png, single(phantom, oar=EYE)):
        corner = decoded(png)[:60, -260:].astype(int)
        assert (np.abs(corner - AMBER).max(axis=-1) < 12).sum() > 200


@pytest.mark.parametrize(
    ("millilitres", "text"),
    [(0.0, "not drawn"), (0.063, "0.06 ml"), (8.579, "8.58 ml"), (29.44, "29.4 ml"), (1386.4, "1386 ml")],
)
def test_volumes_have_as_many_digits_as_mean_something(millilitres: float, text: str) -> None:
    assert volume_text(millilitres) == text


def test_text_that_the_type_does_not_have_is_shown_as_question_marks() -> None:
    assert to_printable("Ünet·21 山\n") == "?net·21 ??"


# ── where it is cut ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0.5, 5.0))
def test_levels_run_from_head_to_foot_without_doubles(slices: int, seed: int, spacing_mm: float) -> None:
    counts = np.random.default_rng(seed).integers(0, 3, (len(OARS), slices)) * 50
    levels = axial_levels(Profiles(counts, counts, counts), OARS, np.arange(slices) * spacing_mm)
    assert len(levels) == min(6, slices)
    assert levels == sorted(set(levels), reverse=True)
    assert all(0 <= level < slices for level in levels)


def test_profiles_count_the_voxels_of_each_plane(phantom: Phantom) -> None:
    profiles = to_profiles(phantom.masks.bits, OARS)
    mask = phantom.masks.mask(EYE)
    i = OARS.index(EYE)
    assert (profiles.z[i] == mask.sum(axis=(1, 2))).all()
    assert (profiles.y[i] == mask.sum(axis=(0, 2))).all()
    assert (profiles.x[i] == mask.sum(axis=(0, 1))).all()


@pytest.mark.parametrize("hu", [-1000, 40])
@pytest.mark.parametrize("slices", [2, 37])
def test_a_series_in_which_nothing_was_drawn_has_a_preview_too(hu: int, slices: int) -> None:
    whole = crooked.crooked_grid()
    grid = Grid(61, 53, whole.origins_mm[:slices], whole.row_direction, whole.column_direction, 1.1, 0.9)
    volume = np.full(grid.shape, hu, dtype=np.int16)
    masks = OARMasks.empty(OARS, grid.shape)
    assert decoded(contact_sheet(volume, grid, masks, model=MODEL)).shape == (976, 2018, 3)
    assert decoded(Rendering.of(volume, grid, masks, model="").single(oar=EYE)).shape[2] == 3


def test_the_grid_is_turned_back_and_forth() -> None:
    for grid in orientations.ALL.values():
        axes = to_axes(grid)
        assert [axes.slice_index(axes.slice_index(z)) for z in (0, 7, 36)] == [0, 7, 36]
        for positions in (axes.z_mm, axes.y_mm, axes.x_mm):
            assert (np.diff(positions) > 0).all()


# ── the rendering ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stored_rendering_draws_what_the_series_would(phantom: Phantom, tmp_path: Path) -> None:
    path = tmp_path / "rendering.npz"
    save_rendering(path, phantom.hu, phantom.grid, phantom.masks, model=MODEL)
    stored = load_rendering(path)
    for oar, z in ((None, None), (EYE, None), (None, 60), (EYE, 3)):
        assert stored.single(oar=oar, z=z) == single(phantom, oar=oar, z=z, model=MODEL)
    assert path.stat().st_size < 3_000_000


def test_an_organ_is_shown_where_it_is_largest(phantom: Phantom, tmp_path: Path) -> None:
    path = tmp_path / "rendering.npz"
    save_rendering(path, phantom.hu, phantom.grid, phantom.masks)
    rendering = load_rendering(path)
    assert rendering.best_slice(EYE) == int(np.argmax(phantom.masks.mask(EYE).sum(axis=(1, 2))))
    volume = rendering.millilitres()[OARS.index(EYE)]
    assert volume == pytest.approx(4 / 3 * math.pi * 12.7**3 / 1000, rel=0.03)


def test_a_slice_that_does_not_exist_is_refused(phantom: Phantom) -> None:
    with pytest.raises(IndexError):
        single(phantom, z=127)


def test_a_rendering_never_runs_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "rendering.npz"
    with path.open("wb") as file:
        np.savez(file, size=np.array([{"not": "numbers"}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_rendering(path)


def test_the_rendering_of_a_real_series_is_small(siemens_series: Path, tmp_path: Path) -> None:
    from oarlock.ct.series import check_headers, read_ct_series

    series = read_ct_series(check_headers(sorted(siemens_series.rglob("*.dcm"))))
    grid = series.header.grid
    masks = OARMasks.empty(OARS, grid.shape)
    z, y, x = np.ogrid[:186, :512, :512]
    masks.put(EYE, (slice(0, 186), slice(0, 512), slice(0, 512)), (2 * (z - 131)) ** 2 + (y - 195) ** 2 + (x - 287) ** 2 < 150)
    path = tmp_path / "rendering.npz"
    save_rendering(path, series.hu, grid, masks, model=MODEL)
    assert path.stat().st_size < 25_000_000
    sheet = contact_sheet(series.hu, grid, masks, model=MODEL)
    assert len(sheet) < 3_000_000
    assert b"physician" not in sheet
