"""A file for each site: what it sets for itself, and what is refused when a process starts."""

from pathlib import Path

import pytest

from oarlock.errors import SiteFileInvalid
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.site_file import Site
from oarlock.settings import Settings
from oarlock.sites import SiteRules, read_sites
from oarlock.store.retention import Retention

NORTH = """
name = "Radiotherapy North"
profile = "generic"
keep_input = "12h"
keep_results = "7d"
rate_per_minute = 30
share = 2
[tolerances_mm]
Parotid_L = 3.0
"""


def settings(folder: Path, **changes: object) -> Settings:
    return Settings(_env_file=None, sites=folder, **changes)  # type: ignore[arg-type,call-arg]


def test_a_site_has_what_its_file_says_and_the_rest_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "north.toml").write_text(NORTH)
    (tmp_path / "south.toml").write_text("")
    north = Site(name="Radiotherapy North", tolerances_mm={BY_NAME["Parotid_L"]: 3.0})
    assert read_sites(tmp_path) == {
        "north": SiteRules(north, "generic", Retention(43_200, 604_800), 30, 2),
        "south": SiteRules(Site()),
    }


def test_the_jobs_of_a_site_without_a_file_and_an_operators_are_judged_by_the_servers(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "north.toml").write_text(NORTH)
    (tmp_path / "server.toml").write_text("[tolerances_mm]\nParotid_L = 2.0")
    found = settings(tmp_path / "sites", site_file=tmp_path / "server.toml")
    tolerances = {name: found.site_of(name).tolerances_mm[BY_NAME["Parotid_L"]] for name in ("north", "south", "")}
    assert tolerances == {"north": 3.0, "south": 2.0, "": 2.0}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("north.toml", "share = 0", "in north.toml, share must be a number from 1 to 10"),
        ("north.toml", "share = 1.5", "in north.toml, share must be"),
        ("north.toml", 'keep_results = "never"', 'keep_results must be a duration in quotes, such as "90d"'),
        ("north.toml", "keep_input = 7", "keep_input must be a duration in quotes"),
        ("north.toml", "rate_per_minute = -1", "rate_per_minute must be a number"),
        ("north.toml", "profile = 1", "profile must be a name in quotes"),
        ("north.toml", 'profile = "monaco2"', "in north.toml, monaco2 is not the name of a profile"),
        ("north.toml", "shares = 2", "in north.toml, it has an unknown table or key, shares"),
        ("north.toml", "[tolerances_mm]\nParotid = 3", "in north.toml, in [tolerances_mm], Parotid is not a supported OAR"),
        ("north.toml", "share = ", "in north.toml, it is not TOML"),
        ("-north.toml", "", "-north.toml is not named after a site"),
    ],
)
def test_a_mistake_in_a_sites_file_is_one_sentence_that_names_the_file(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SiteFileInvalid) as refused:
        settings(tmp_path).check_sites()
    assert said in refused.value.detail


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteFileInvalid, match="there is no folder"):
        settings(tmp_path / "none").check_sites()
