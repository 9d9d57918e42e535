"""Site profiles over HTTP, and at the start of a process."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from oarlock.cli.main import main
from oarlock.ct.writer import write_ct_series
from oarlock.rtstruct.profiles import read_profiles
from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.jobs import JobId
from oarlock.store.keys import KeyStore
from service.container import running as opened
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_profiles_are_listed_with_all_they_hold(client: httpx.Client) -> None:
    listed = {entry["name"]: entry for entry in client.get("/v1/profiles").json()["profiles"]}
    shipped = read_profiles(None)
    assert list(listed) == list(shipped)
    assert [name for name, entry in listed.items() if entry["default"]] == ["generic"]
    for name, profile in shipped.items():
        assert [roi["name"] for roi in listed[name]["rois"]] == [style.name for style in profile.styles]
        assert listed[name]["empty_rois"] == {True: "keep", False: "leave_out"}[profile.keep_empty]


def test_the_example_of_a_profile_has_the_members_of_a_real_one(client: httpx.Client) -> None:
    answers = client.get("/openapi.json").json()["paths"]["/v1/profiles"]["get"]["responses"]
    (example,) = answers["200"]["content"]["application/json"]["example"]["profiles"]
    real = client.get("/v1/profiles").json()["profiles"][0]
    assert set(example) == set(real)
    assert set(example["rois"][0]) == set(real["rois"][0])


@pytest.mark.parametrize(
    ("named", "used"), [({"profile": "raystation"}, "raystation"), ({"profile": ""}, "generic"), ({}, "generic")]
)
def test_a_job_is_given_to_the_profile_that_is_named(
    client: httpx.Client, running: Running, series: list[Path], named: dict[str, str], used: str
) -> None:
    answer = client.post("/v1/jobs", files=parts(series), data=named)
    assert answer.status_code == 202
    assert running.store.get(JobId(answer.json()["id"])).profile == used


def test_the_sites_default_is_used_where_a_post_names_none(tmp_path: Path, redis_url: str, series: list[Path]) -> None:
    write_model(tmp_path / "models")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "clinic.toml").write_text('description = "ours"')
    settings = make_settings(tmp_path, redis_url, profiles=tmp_path / "profiles", profile="clinic")
    with serve(settings) as running:
        answer = httpx.post(f"{running.url}/v1/jobs", files=parts(series), timeout=30)
        assert running.store.get(JobId(answer.json()["id"])).profile == "clinic"


def test_the_keys_own_profile_comes_before_the_servers_and_after_the_posts(
    tmp_path: Path, redis_url: str, series: list[Path]
) -> None:
    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, profile="monaco")) as running:
        keys = KeyStore(running.service.database)
        tokens = {
            profile: keys.create(f"key-{profile}", [Scope.JOBS_WRITE], profile=profile)[1]
            for profile in (None, "eclipse", "gone")
        }

        def used(key: str | None, **fields: str) -> str | None:
            headers = {"Authorization": f"Bearer {tokens[key]}"}
            answer = httpx.post(f"{running.url}/v1/jobs", files=parts(series), data=fields, headers=headers, timeout=30).json()
            return running.store.get(JobId(answer["id"])).profile if "id" in answer else answer["code"]

        assert used(None) == "monaco"
        assert used("eclipse") == "eclipse"
        assert used("eclipse", profile="raystation") == "raystation"
        assert used("gone") == "request.unknown_profile"
        assert used("gone", profile="generic") == "generic"


def test_no_key_is_made_for_a_profile_that_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["keys", "create", "planning", "--scope", "jobs:write", "--profile", "eklipse", "--first"]) == 2
    assert "(request.unknown_profile)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_that_a_series_has_no_letters_for_are_refused_in_the_request(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "clinic.toml").write_text('[[roi]]\noar = "Lens_L"\nname = "Lens Ł"', encoding="utf-8")
    settings = make_settings(tmp_path, redis_url, profiles=tmp_path / "profiles")
    files = write_ct_series(tmp_path / "ct", crooked_hu(), crooked_grid(), specific_character_set="ISO_IR 100")
    with serve(settings) as running:
        answer = httpx.post(f"{running.url}/v1/jobs", files=parts(files), data={"profile": "clinic"}, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (422, "request.profile_not_writable")
        assert running.files() == []


WRONG: dict[str, Callable[[Path], dict[str, str]]] = {
    "two OARs have the same name": lambda folder: {"OARLOCK_PROFILES": str(folder)},
    "OARLOCK_PROFILE names it": lambda _: {"OARLOCK_PROFILE": "eklipse"},
    "does not exist": lambda folder: {"OARLOCK_PROFILES": str(folder / "nowhere")},
}


@pytest.mark.long("matrix")
@pytest.mark.parametrize(("face", "reason"), list(zip(cycle(["service", "worker"]), WRONG, strict=False)))
def test_a_wrong_profile_keeps_a_process_from_starting_and_says_why(face: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "clinic.toml").write_text('[names]\ntemplate = "{organ}"')
    environment = os.environ | {"OARLOCK_DATA": str(tmp_path / "data"), "OARLOCK_PORT": "0"} | WRONG[reason](tmp_path)
    environment |= {"REDIS_URL": "redis://127.0.0.1:1/0"} if face == "worker" else {}
    done = subprocess.run(
        [sys.executable, "-m", face], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert reason in done.stderr
    assert not (tmp_path / "data" / "redis").exists()


def test_an_application_of_other_makers_does_not_start_with_a_wrong_profile_either(tmp_path: Path) -> None:
    from oarlock.errors import ProfileInvalid

    settings = Settings(data=tmp_path, profile="eklipse")  # type: ignore[call-arg]
    with pytest.raises(ProfileInvalid, match="OARLOCK_PROFILE names it"), opened(settings):
        pass
