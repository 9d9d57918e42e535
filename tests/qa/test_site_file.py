"""A site's own file: what it may say, and how a mistake in it is told."""

from pathlib import Path

import pytest

from oarlock.errors import SiteFileInvalid
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.site_file import Site, read_site
from oarlock.settings import Settings


def written(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_and_tolerances_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path, '[names]\n"Ohrspeichel links" = "Parotid_L"\n"Cord old" = ""\n[tolerances_mm]\nParotid_L = 3\nLens_R = 0.9\n'
    )
    site = read_site(path)
    assert site.names == {"Ohrspeichel links": "Parotid_L", "Cord old": ""}
    assert site.tolerances_mm == {BY_NAME["Parotid_L"]: 3.0, BY_NAME["Lens_R"]: 0.9}


def test_an_organs_own_action_level_takes_the_place_of_that_for_all(tmp_path: Path) -> None:
    text = 'name = "Here"\n[action_levels.all]\nsurface_dsc = 0.8\nhausdorff_95_mm = 9\n'
    text += "[action_levels.Brain]\nsurface_dsc = 0.9\n"
    site = read_site(written(tmp_path, text))
    assert site.name == "Here"
    assert site.action_levels[BY_NAME["Brain"]] == {"surface_dsc": 0.9, "hausdorff_95_mm": 9}
    assert site.action_levels[BY_NAME["Lens_R"]] == {"surface_dsc": 0.8, "hausdorff_95_mm": 9}


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert read_site(written(tmp_path, "")) == Site()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[names]\nx = ", "not TOML"),
        ("x = " + "[" * 5_000, "not TOML"),
        ('[nams]\nx = "Brain"', "unknown table or key, nams"),
        ("tolerance = 3", "unknown table or key, tolerance"),
        ('names = "Brain"', "ROI name = OAR"),
        ("[names]\nx = 3", "ROI name = OAR"),
        ('[names]\nx = "Larynx"', "not a supported OAR: Larynx"),
        ('[names]\n"" = "Brain"', "is empty, or means two things"),
        ('[names]\n"Hirn A" = "Brain"\n"hirn a " = "Brainstem"', "is empty, or means two things"),
        ('[names]\n"Hirn A" = "Brain"\n"hirn a " = ""', "is empty, or means two things"),
        ("tolerances_mm = 3", "OAR = number"),
        ("[tolerances_mm]\nLarynx = 3", "Larynx is not a supported OAR"),
        ("[tolerances_mm]\nBrain = 0", "Brain must be a number above 0"),
        ("[tolerances_mm]\nBrain = -1.5", "Brain must be a number above 0"),
        ("[tolerances_mm]\nBrain = nan", "Brain must be a number above 0"),
        ("[tolerances_mm]\nBrain = inf", "Brain must be a number above 0"),
        ("[tolerances_mm]\nBrain = true", "Brain must be a number above 0"),
        ('[tolerances_mm]\nBrain = "3"', "Brain must be a number above 0"),
        ("[tolerances_mm]\nBrain = 20.1", "at most 20.0 mm"),
        ("name = 3", "name must be text"),
        ("[action_levels.Larynx]\nsurface_dsc = 0.8", "Larynx is not a supported OAR"),
        ("[action_levels.all]\nsurface = 0.8", "surface is not one of surface_dsc"),
        ("[action_levels.all]\nsurface_dsc = 80", "surface_dsc must be at most 1"),
        ("[action_levels.all]\nsurface_dsc = nan", "number = level"),
        ("[action_levels]\nBrain = 0.8", "number = level"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_reason(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SiteFileInvalid, match=reason):
        read_site(written(tmp_path, text))


def test_a_tolerance_of_20_mm_is_the_largest(tmp_path: Path) -> None:
    assert read_site(written(tmp_path, "[tolerances_mm]\nBrain = 20")).tolerances_mm == {BY_NAME["Brain"]: 20.0}


def test_a_file_that_is_missing_huge_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteFileInvalid, match="No such file"):
        read_site(tmp_path / "none.toml")
    with pytest.raises(SiteFileInvalid, match="larger than"):
        read_site(written(tmp_path, "#" * 1_000_001))
    (tmp_path / "site.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SiteFileInvalid, match="not TOML"):
        read_site(tmp_path / "site.toml")


def test_the_settings_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().site == Site()
    monkeypatch.setenv("OARLOCK_SITE_FILE", str(written(tmp_path, "[tolerances_mm]\nBrain = 2")))
    assert Settings().site.tolerances_mm == {BY_NAME["Brain"]: 2.0}
