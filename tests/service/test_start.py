"""The start of a service: what it says, and what it makes of its data folder."""

import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from oarlock.errors import DefaultModelMissing
from oarlock.store.files import make_private
from service import container
from service.__main__ import check_model
from tests.service.conftest import make_settings
from tests.service.running import write_model

ROOT = Path(__file__).parents[2]


def test_nothing_starts_with_a_default_model_that_is_not_there(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models", "other")
    settings = make_settings(tmp_path, redis_url, model="nope")
    for start in (check_model, lambda settings: container.running(settings).__enter__()):
        with pytest.raises(DefaultModelMissing, match=r"models has no model 'nope' \(found: other\)"):
            start(settings)


def test_a_default_model_whose_manifest_is_wrong_stops_no_service(tmp_path: Path, redis_url: str) -> None:
    write_model(tmp_path / "models", "tiny")
    (tmp_path / "models" / "tiny" / "manifest.toml").write_text("schema_version = 9")
    check_model(make_settings(tmp_path, redis_url, model="tiny"))


def test_a_data_folder_of_before_is_taken_away_from_other_users(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    for name in ("oarlock.sqlite", "oarlock.sqlite-wal", "logs/worker.log"):
        (data / name).touch(mode=0o644)
    data.chmod(0o755)
    make_private(data)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (data, *data.rglob("*")) if path.name != "logs"} == {
        "data": 0o700,
        "oarlock.sqlite": 0o600,
        "oarlock.sqlite-wal": 0o600,
        "worker.log": 0o600,
    }


@pytest.mark.slow
def test_what_a_service_writes_is_for_its_own_user_alone(tmp_path: Path) -> None:
    """Whatever the shell's umask is."""
    environment = os.environ | {"OARLOCK_DATA": str(tmp_path / "data"), "OARLOCK_PORT": "0", "OARLOCK_EMBEDDED_WORKER": "false"}
    for name in ("REDIS_URL", "DATABASE_URL"):
        environment.pop(name, None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    service = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment, umask=0, **pipes)
    try:
        assert service.stdout is not None
        assert b"listens" in service.stdout.readline()
        modes = modes_below(tmp_path / "data")
    finally:
        service.terminate()
        try:
            service.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            service.kill()
            service.communicate()
    assert {"oarlock.sqlite", "redis", "data"} <= modes.keys()
    assert {name for name, mode in modes.items() if mode & 0o077} == set()


def modes_below(folder: Path) -> dict[str, int]:
    """The modes of a folder and of what is in it; some of that comes and goes."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            found[path.name] = stat.S_IMODE(path.lstat().st_mode)
    return found
