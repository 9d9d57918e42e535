"""The handbook's backup and restore, done as it says; and two services over one folder, one queue and one database."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from oarlock.store.files import RTSTRUCT
from tests.service.conftest import make_settings
from tests.service.running import parts, serve, write_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def commands(which: str) -> str:
    """A block of commands of the handbook."""
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```sh\n# {which}: [^\n]*\n(.*?)```", handbook, re.DOTALL)
    return str(found)


def follow(which: str, data: Path, backup: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"OARLOCK_DATA": str(data), "BACKUP": str(backup), "PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("DATABASE_URL", None)
    subprocess.run(["bash", "-euc", commands(which)], check=True, env=environment, cwd=data.parent)


@pytest.mark.long("matrix")
def test_what_was_backed_up_while_the_service_ran_is_there_after_the_restore(
    tmp_path: Path, redis_url: str, series: list[Path]
) -> None:
    write_model(tmp_path / "models")
    settings = make_settings(tmp_path, redis_url)
    with serve(settings) as running:
        done, waiting = (httpx.post(f"{running.url}/v1/jobs", files=parts(series)).json() for _ in range(2))
        running.finish(done, {RTSTRUCT: b"contours"})
        follow("backup", settings.data, tmp_path / "backup")
        after = httpx.post(f"{running.url}/v1/jobs", files=parts(series)).json()
    follow("restore", tmp_path / "restored", tmp_path / "backup")
    restored = settings.model_copy(update={"data": tmp_path / "restored"})
    with serve(restored) as running, httpx.Client(base_url=running.url) as client:
        assert client.get(f"/v1/jobs/{done['id']}/rtstruct").content == b"contours"
        assert client.get(f"/v1/jobs/{waiting['id']}").json()["state"] == "queued"
        assert len(running.service.storage.input_files(waiting["id"])) == len(series)
        assert client.get(f"/v1/jobs/{after['id']}").status_code == 404


def test_two_services_answer_for_each_others_jobs(migrated_url: str, tmp_path: Path, redis_url: str, series: list[Path]) -> None:
    write_model(tmp_path / "models")
    settings = make_settings(tmp_path, redis_url, database_url=migrated_url)
    with serve(settings) as one, serve(settings) as other:
        job = httpx.post(f"{one.url}/v1/jobs", files=parts(series)).json()
        assert httpx.get(f"{other.url}/v1/jobs/{job['id']}").json()["state"] == "queued"
        other.finish(job, {RTSTRUCT: b"contours"})
        assert httpx.get(f"{one.url}/v1/jobs/{job['id']}/rtstruct").content == b"contours"
        assert httpx.delete(f"{other.url}/v1/jobs/{job['id']}").status_code == 204
        assert httpx.get(f"{one.url}/v1/jobs/{job['id']}").status_code == 410
        assert one.files() == []
