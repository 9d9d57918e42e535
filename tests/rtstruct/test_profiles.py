"""A site's own names, order, colours and labels, and nothing of the contours changed by them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.dicom import patient_attributes as identity
from oarlock.errors import ProfileInvalid, ProfileNotWritable, TooManyPoints
from oarlock.geometry.contours import PlanarContour, to_mask
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.polygons import crossings
from oarlock.geometry.thinning import SAFE_SHARE, thin
from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.rtstruct.profiles import (
    _ROI,
    GENERIC,
    SHIPPED,
    Profile,
    _Contours,
    _File,
    _Names,
    _StructureSet,
    check_default,
    read_profiles,
    to_profile,
)
from oarlock.rtstruct.validator import check_rtstruct
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures import judges
from tests.fixtures.organs import AUTHORSHIP, Series, awkward_masks, small_grid, write_series

ROOT = Path(__file__).parents[2]
MORNING = datetime(2026, 3, 5, 7, 8, 9, tzinfo=UTC)


def written(profile: Profile, series: Series, folder: Path) -> Dataset:
    path = folder / "rtstruct.dcm"
    write_rtstruct(path, series.masks, series.header, AUTHORSHIP, profile)
    assert check_rtstruct(path, series.header, series.masks, profile) == []
    return pydicom.dcmread(path)


def named(dataset: Dataset) -> list[str]:
    return [roi.ROIName for roi in dataset.StructureSetROISequence]


# ── the files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_shipped_profiles_are_those_of_the_common_planning_systems_and_state_the_source_of_each_limit() -> None:
    assert list(read_profiles(None)) == ["eclipse", "generic", "monaco", "pinnacle", "raystation"]
    for path in SHIPPED.glob("*.toml"):
        limits = re.findall(r"(?m)^#   (.*)$", path.read_text(encoding="utf-8"))
        assert limits
        for limit in limits:
            assert re.search(r"unverified|PS3\.\d|doi:10\.|(issue|pull request) \d+", limit), limit


def test_the_generic_profile_is_what_is_written_where_nobody_asks() -> None:
    generic = read_profiles(None)["generic"]
    assert GENERIC.styles == generic.styles
    for part in ("label", "series_description", "keep_empty", "ordered", "max_name_length", "max_points", "description"):
        assert getattr(GENERIC, part) == getattr(generic, part)


def test_a_sites_file_is_added_and_takes_the_place_of_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "eclipse.toml").write_text('description = "ours"\n')
    (tmp_path / "my-clinic.toml").write_text("")
    (tmp_path / "notes.txt").write_text("no profile")
    profiles = read_profiles(tmp_path)
    assert profiles["eclipse"].description == "ours"
    assert sorted(set(profiles) - {path.stem for path in SHIPPED.glob("*.toml")}) == ["my-clinic"]


WRONG: list[tuple[str, str]] = [
    ("label = 'x'", "the file: the key label is unknown"),
    ("[structure_set]\nlable = 'x'", r"\[structure_set\] the key lable is unknown"),
    ("structure_set = 3", "structure_set must be a table"),
    ("roi = 3", "roi must be a list of tables"),
    ("[structure_set]\nlabel = 'seventeen letters'", "longer than 16 characters"),
    ("[structure_set]\nlabel = '{date}{time}{date}x'", "longer than 16 characters"),
    ("[structure_set]\nlabel = '{date.__class__}'", r"may have the fields \{date\}, \{model\}, \{time\}, \{version\}"),
    ("[structure_set]\nlabel = 'a{'", "may have the fields"),
    ("[structure_set]\nlabel = ''", r"\[structure_set\] label must not be empty"),
    ("[structure_set]\nlabel = 'Größe'", "must be ASCII"),
    ("[structure_set]\nlabel = 'a\\\\b'", "must not hold a backslash"),
    ("[structure_set]\nlabel = ' a'", "or a blank at an end"),
    ('[structure_set]\nlabel = "a\\nb"', "must not hold a backslash"),
    ("[structure_set]\nlabel = 7", r"\[structure_set\] label must be a text"),
    ("[structure_set]\nseries_description = 'Contours'", "UNAPPROVED"),
    (f"[structure_set]\nseries_description = 'UNAPPROVED {'x' * 60}'", "longer than 64"),
    ("[structure_set]\nempty_rois = 'drop'", '"keep" or "leave_out"'),
    ("[names]\nmax_length = 65", "from 1 to 64"),
    ("[names]\nmax_length = true", "from 1 to 64"),
    ("[names]\ntemplate = '{tg263}_auto_oarlock'", "characters; 1 to 16 are allowed"),
    ("[names]\ntemplate = '{organ}'", "two OARs have the same name.*: cochlea, "),
    ("[names]\ntemplate = '{colour}'", r"\{organ\}, \{paper\}, \{side\}, \{tg263\}"),
    ("[contours]\nmax_points = 15", "from 16 to"),
    ("[contours]\nmax_deviation_mm = 0", "over 0 and up to 1.0"),
    ("[contours]\nmax_deviation_mm = 1.5", "over 0 and up to 1.0"),
    ("[[roi]]\nname = 'x'", r"\[\[roi\]\] number 1: oar is missing"),
    ("[[roi]]\noar = 'Parotid'", r"\[\[roi\]\] number 1: oar must be one of Brain, "),
    ("[[roi]]\noar = 'Brain'\n[[roi]]\noar = 'Brain'\nname = 'other'", "lists an OAR twice: Brain"),
    ("[[roi]]\noar = 'Lens_L'\nname = 'Lens'\n[[roi]]\noar = 'Lens_R'\nname = 'LENS'", "two OARs have the same name.*: lens"),
    ("[[roi]]\noar = 'Brain'\nname = ''", "has 0 characters"),
    ("[[roi]]\noar = 'Brain'\ncolour = [1, 2]", "three whole numbers"),
    ("[[roi]]\noar = 'Brain'\ncolour = [1, 2, 256]", "three whole numbers"),
    ("[[roi]]\noar = 'Brain'\ncolour = [1, 2, 3.0]", "three whole numbers"),
    ("[[limit]]\nwhat = 'x'", "the key limit is unknown"),
    ("[contours]\nmax_points = 1_000_001", "from 16 to 1,000,000"),
    ("[names]\nmax_length = 0", "from 1 to 64"),
    ("[names]\ntemplate = 3", r"\[names\] template must be a text"),
    ("not toml", "cannot be read"),
    ("x = " + "[" * 5_000, "cannot be read"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_a_wrong_profile_is_refused_with_the_reason(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ProfileInvalid, match=reason) as caught:
        read_profiles(tmp_path)
    assert "The profile 'site' cannot be used" in str(caught.value)


def test_a_wrong_name_folder_or_default_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileInvalid, match="does not exist"):
        read_profiles(tmp_path / "nowhere")
    with pytest.raises(ProfileInvalid, match="OARLOCK_PROFILE names it, but it does not exist"):
        check_default(read_profiles(None), "generik")
    (tmp_path / "Our Site.toml").write_text("")
    with pytest.raises(ProfileInvalid, match="small letters"):
        read_profiles(tmp_path)


def test_the_page_explains_every_key_and_every_shipped_profile() -> None:
    page = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")
    tables = (_File, _StructureSet, _Names, _Contours, _ROI)
    keys = {f"`{key}`" for table in tables for key in table.model_fields} - {"`structure_set`", "`names`", "`contours`", "`roi`"}
    assert sorted(key for key in keys if key not in page) == []
    assert set(re.findall(r"^\| `([a-z]+)` \|", page, flags=re.MULTILINE)) >= set(read_profiles(None))
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert to_profile("example", __import__("tomllib").loads(example)).ordered


# ── what is written ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_generic_profile_changes_no_byte(series: Series, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "plain.dcm", series.masks, series.header, AUTHORSHIP)
    written(read_profiles(None)["generic"], series, tmp_path)
    assert (tmp_path / "plain.dcm").read_bytes() == (tmp_path / "rtstruct.dcm").read_bytes()


def test_organs_are_chosen_ordered_named_and_coloured(series: Series, tmp_path: Path) -> None:
    rois = [
        {"oar": "Parotid_R", "name": "{paper} x", "colour": [1, 2, 3]},
        {"oar": "Eye_L"},
        {"oar": "Brain", "name": "Hirn"},
    ]
    profile = to_profile("site", {"roi": rois})
    dataset = written(profile, series, tmp_path)
    assert named(dataset) == ["Parotid-Rt x", "Hirn"]
    assert [o.ROIObservationLabel for o in dataset.RTROIObservationsSequence] == ["Parotid-Rt x", "Hirn"]
    assert [list(roi.ROIDisplayColor) for roi in dataset.ROIContourSequence] == [[1, 2, 3], list(BY_NAME["Brain"].colour)]
    assert [roi.ROINumber for roi in dataset.StructureSetROISequence] == [1, 2]
    codes = [o.RTROIIdentificationCodeSequence[0].CodeValue for o in dataset.RTROIObservationsSequence]
    assert codes == [BY_NAME["Parotid_R"].snomed_code, BY_NAME["Brain"].snomed_code]
    assert [oar.name for oar in profile.not_drawn(series.masks.oars)] == ["Eye_L"]


@pytest.mark.parametrize("template", ["{side}_{organ}", "{paper}", "z{tg263}"])
def test_names_are_made_of_templates(template: str) -> None:
    profile = to_profile("site", {"names": {"template": template, "max_length": 20}})
    names = {style.oar.name: style.name for style in profile.styles}
    expected = {"{side}_{organ}": "L_Parotid", "{paper}": "Parotid-Lt", "z{tg263}": "zParotid_L"}
    assert names["Parotid_L"] == expected[template]
    assert len(set(names.values())) == len(OARS)


def test_labels_are_made_of_templates_and_fit() -> None:
    profile = to_profile("site", {"structure_set": {"label": "{model} {date} {time}"}})
    assert profile.structure_set_label(MORNING, model="hn", version="1") == "hn 260305 0708"
    assert profile.structure_set_label(MORNING, model="oarlock-hn", version="1") == "oarlock-hn 26030"


def test_label_and_description_of_the_series_are_the_profiles(series: Series, tmp_path: Path) -> None:
    texts = {"label": "AI {version}", "series_description": "AI contours, UNAPPROVED"}
    dataset = written(to_profile("site", {"structure_set": texts}), series, tmp_path)
    assert (dataset.StructureSetLabel, dataset.SeriesDescription) == ("AI 1.2.3", "AI contours, UNAPPROVED")
    assert dataset.StructureSetDescription.endswith("Profile site")
    assert dataset.ApprovalStatus == "UNAPPROVED"


def test_empty_rois_are_kept_or_left_out_and_always_warned_about(series: Series, tmp_path: Path) -> None:
    for choice, listed in (("keep", 5), ("leave_out", 4)):
        profile = to_profile("site", {"structure_set": {"empty_rois": choice}})
        dataset = written(profile, series, tmp_path)
        assert len(dataset.StructureSetROISequence) == len(dataset.ROIContourSequence) == listed
        assert len(dataset.RTROIObservationsSequence) == listed
        assert ("Lens_R" in named(dataset)) == (choice == "keep")
        warnings = write_rtstruct(tmp_path / "again.dcm", series.masks, series.header, AUTHORSHIP, profile).warnings
        assert [(warning.code, warning.detail[:18]) for warning in warnings] == [("rtstruct.empty_roi", "Lens_R is empty: t")]


def test_a_structure_set_without_any_roi_is_never_written(series: Series, tmp_path: Path) -> None:
    """Structure Set ROI Sequence has one item or more (PS3.3 C.8.8.5)."""
    nothing = OARMasks.empty(series.masks.oars, series.masks.shape)
    profile = to_profile("site", {"structure_set": {"empty_rois": "leave_out"}})
    write_rtstruct(tmp_path / "rtstruct.dcm", nothing, series.header, AUTHORSHIP, profile)
    assert named(pydicom.dcmread(tmp_path / "rtstruct.dcm")) == [oar.name for oar in series.masks.oars]
    assert check_rtstruct(tmp_path / "rtstruct.dcm", series.header, nothing, profile) == []
    assert judges.dciodvfy(tmp_path / "rtstruct.dcm") == []


GERMAN = {"roi": [{"oar": "Parotid_R", "name": "Ohrspeicheldrüse"}, {"oar": "Brain", "name": "Großhirn"}]}


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "GB18030"])
def test_names_are_written_in_the_character_set_of_the_ct(charset: str, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", specific_character_set=charset)
    dataset = written(to_profile("site", GERMAN), series, tmp_path)
    assert dataset.SpecificCharacterSet == charset
    assert named(dataset) == ["Ohrspeicheldrüse", "Großhirn"]
    assert judges.dciodvfy(tmp_path / "rtstruct.dcm") == judges.dciodvfy(series.files[0])


@pytest.mark.parametrize("charset", ["ISO_IR 144", "ISO_IR 13", ""])
def test_names_that_the_character_set_of_the_ct_does_not_have_are_refused(charset: str, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", specific_character_set=charset)
    with pytest.raises(ProfileNotWritable, match=r"profile 'site' gives Parotid_R a name") as caught:
        write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP, to_profile("site", GERMAN))
    assert "Ohr" not in str(caught.value)
    assert not (tmp_path / "rtstruct.dcm").exists()


def test_names_in_a_character_set_with_code_extensions_come_back() -> None:
    template = Dataset()
    template.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    raw = identity.encoded("耳下腺", template)
    assert raw == b"\x1b$B<*2<A#\x1b(B"  # JIS X 0208 in its escape sequences (PS3.5 H.3)
    assert identity.encoded("Größe", template) is None


def test_a_name_too_long_for_an_observation_label_has_none(series: Series, tmp_path: Path) -> None:
    """A label has 16 characters at most; the names have 29, 16 and 17."""
    names = {"Brain": "Brain, as the network drew it", "Lens_R": "Lens_R, as drawn", "Cochlea_L": "Cochlea_L, drawn."}
    rois = [{"oar": oar, "name": name} for oar, name in names.items()]
    dataset = written(to_profile("site", {"names": {"max_length": 40}, "roi": rois}), series, tmp_path)
    assert named(dataset)[0] == "Brain, as the network drew it"
    assert ["ROIObservationLabel" in observation for observation in dataset.RTROIObservationsSequence] == [False, True, False]
    assert judges.dciodvfy(tmp_path / "rtstruct.dcm") == []


@pytest.mark.parametrize("name", ["eclipse", "generic", "monaco", "pinnacle", "raystation"])
def test_the_validators_have_nothing_to_say_of_any_shipped_profile(name: str, series: Series, tmp_path: Path) -> None:
    dataset = written(read_profiles(None)[name], series, tmp_path)
    path = tmp_path / "rtstruct.dcm"
    assert judges.dciodvfy(path) == []
    assert judges.drtdump(path) == []
    assert judges.dcentvfy([*series.files, path]) == ""
    assert set(named(dataset)) <= {oar.name for oar in OARS}


def test_the_check_finds_an_organ_under_another_name_than_the_profiles(series: Series, tmp_path: Path) -> None:
    written(GENERIC, series, tmp_path)
    profile = to_profile("site", {"roi": [{"oar": "Brain", "name": "Hirn"}]})
    findings = check_rtstruct(tmp_path / "rtstruct.dcm", series.header, series.masks, profile)
    assert findings == ["Brain is not among the ROIs"]


# ── fewer points ──────────────────────────────────────────────────────────────────────────────────────────────────────


def wavy(folder: Path, frequency: float) -> Series:
    """One slice of three holds a disc with a wavy rim."""
    origins = np.array([[-40.3, -51.9, 3.0 * z] for z in range(3)])
    grid = Grid(131, 117, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 0.83, 0.71)
    files = write_ct_series(folder, np.zeros(grid.shape, dtype=np.int16), grid)
    masks = OARMasks.empty([BY_NAME["Brain"]], grid.shape)
    y, x = np.indices((131, 117)) - np.array([64, 57])[:, None, None]
    radius = 40 + 5 * np.sin(frequency * np.arctan2(y, x))
    masks.bits[1] = (np.hypot(y, x) < radius).astype(np.uint32)
    return Series(files, check_headers(files), masks)


def to_line_mm(points: Any, polygon: Any) -> float:
    """The largest distance of points from a closed polygon, edge by edge."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    along = end - start
    share = np.einsum("pek,ek->pe", points[:, None] - start, along) / np.einsum("ek,ek->e", along, along)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    return float(np.linalg.norm(points[:, None] - nearest, axis=2).min(axis=1).max())


def test_a_contour_comes_down_to_the_maximum_within_the_bound_and_no_voxel_changes(tmp_path: Path) -> None:
    series = wavy(tmp_path / "ct", 5)
    exact = write_rtstruct(tmp_path / "exact.dcm", series.masks, series.header, AUTHORSHIP).contours["Brain"]
    profile = to_profile("site", {"contours": {"max_points": 115, "max_deviation_mm": 0.3}})
    result = write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP, profile)
    (before,), (after,) = exact, result.contours["Brain"]
    assert len(before.points_mm) > 115 >= len(after.points_mm)
    deviation_mm = to_line_mm(before.points_mm, after.points_mm)
    assert 0 < deviation_mm <= 0.34 * 0.71
    assert [warning.code for warning in result.warnings] == ["rtstruct.thinned"]
    stated = float(re.findall(r"up to (\d\.\d\d) mm", result.warnings[0].detail)[0])
    assert deviation_mm <= stated + 0.005
    assert check_rtstruct(tmp_path / "rtstruct.dcm", series.header, series.masks, profile) == []
    yx, _ = series.header.grid.to_plane(1, after.points_mm)
    np.testing.assert_array_equal(to_mask([(1, yx)], series.masks.shape), series.masks.mask(BY_NAME["Brain"]))


def test_contours_that_have_few_points_stay_as_they_are(series: Series, tmp_path: Path) -> None:
    profile = to_profile("generic", {"description": GENERIC.description, "contours": {"max_points": 1000}})
    write_rtstruct(tmp_path / "plain.dcm", series.masks, series.header, AUTHORSHIP)
    written(profile, series, tmp_path)
    assert (tmp_path / "plain.dcm").read_bytes() == (tmp_path / "rtstruct.dcm").read_bytes()


def test_a_contour_that_cannot_come_down_within_the_bound_is_an_error_and_no_file(tmp_path: Path) -> None:
    series = wavy(tmp_path / "ct", 40)
    profile = to_profile("site", {"contours": {"max_points": 16, "max_deviation_mm": 1.0}})
    with pytest.raises(TooManyPoints, match=r"contour of Brain on slice 2 .* within 0\.24 mm .* the profile allows 16"):
        write_rtstruct(tmp_path / "rtstruct.dcm", series.masks, series.header, AUTHORSHIP, profile)
    assert not (tmp_path / "rtstruct.dcm").exists()


@pytest.mark.parametrize("frequency", [1, 3, 7, 11, 19])
def test_the_bound_is_never_so_wide_that_a_voxel_changes_sides(frequency: int, tmp_path: Path) -> None:
    """Even where the profile allows 1 mm, which is more than a pixel here."""
    series = wavy(tmp_path / "ct", frequency)
    grid, brain = series.header.grid, BY_NAME["Brain"]
    contours = write_rtstruct(tmp_path / "exact.dcm", series.masks, series.header, AUTHORSHIP).contours["Brain"]
    thinned = thin(contours, grid, max_points=16, max_deviation_mm=1.0)
    assert thinned.deviation_mm <= SAFE_SHARE * 0.71
    polygons = [(contour.z, grid.to_plane(contour.z, contour.points_mm)[0]) for contour in thinned.contours]
    np.testing.assert_array_equal(to_mask(polygons, series.masks.shape), series.masks.mask(brain))
    assert crossings([yx for _, yx in polygons], [z for z, _ in polygons], 1.0) == []


def test_thinning_leaves_the_points_that_stay_where_they_were() -> None:
    grid = small_grid()
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    points = np.stack([20 * np.cos(angles), 17 * np.sin(angles), np.full(400, 2.5)], axis=1)
    (thinned,) = thin([PlanarContour(1, points)], grid, max_points=60, max_deviation_mm=0.3).contours
    assert {tuple(point) for point in thinned.points_mm} <= {tuple(point) for point in points}
    assert len(thinned.points_mm) <= 60


@pytest.mark.parametrize(
    "edit", [lambda masks: masks, lambda masks: masks.select(masks.oars[::-1]), lambda masks: masks.select(masks.oars[1:3])]
)
def test_selected_masks_are_those_of_the_same_organs(edit: Callable[[OARMasks], OARMasks]) -> None:
    masks = awkward_masks()
    chosen = edit(masks)
    for oar in chosen.oars:
        np.testing.assert_array_equal(chosen.mask(oar), masks.mask(oar))
