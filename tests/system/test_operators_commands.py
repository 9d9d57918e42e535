"""The operator's commands of the composition (``docker/start`` …), with an engine that only writes down its orders."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

ENGINE = """#!/bin/sh
echo "$(basename "$PWD"): $*" >>"$ORDERS"
case "$*" in
    *"port service"*) echo 127.0.0.1:8000 ;;
    *"keys list"*) cat "$KEYS" ;;
    *"keys create first"*) echo oarlock_0123456789ab_secret ;;
    *"oarlock upgrade"* | *"oarlock roll-back"*) exit "${REFUSES:-0}" ;;
    *"image inspect"*) echo "redis@sha256:0123" ;;
esac
"""


class Operator:
    """Somebody at a folder of the composition."""

    def __init__(self, folder: Path) -> None:
        for name in ("newer", "older"):
            shutil.copytree(ROOT / "docker", folder / name / "docker")
            for file in ("docker-compose.yml", ".env"):
                shutil.copy(ROOT / file, folder / name / file)
        (folder / "docker").write_text(ENGINE)
        (folder / "docker").chmod(0o755)
        self.folder, self.keys, self._orders = folder, folder / "keys", folder / "orders"
        self.keys.write_text("NAME ID STATE EXPIRES PROFILE SITE SCOPES\nmetrics 01 valid never - - metrics:read\n")
        self._orders.touch()

    def types(self, command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        path = {"PATH": f"{self.folder}:{os.environ['PATH']}", "ORDERS": str(self._orders), "KEYS": str(self.keys)}
        return subprocess.run(
            ["sh", *command.split()],
            cwd=self.folder / "newer",
            env=path | environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def orders(self) -> list[str]:
        """What the engine was told, without the times in names."""
        return [re.sub(r"\d{8}T\d{6}Z", "TIME", line) for line in self._orders.read_text().splitlines()]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_the_first_start_prints_the_key_the_address_and_how_to_post_a_series(operator: Operator) -> None:
    done = operator.types("docker/start --scale worker=2")
    assert done.returncode == 0, done.stderr
    assert operator.orders[0] == "newer: compose up -d --scale worker=2"
    for said in ("http://127.0.0.1:8000/docs", "KEY=oarlock_0123456789ab_secret", "--data-binary @series.zip", "/rtstruct"):
        assert said in done.stdout


def test_a_later_start_makes_no_key(operator: Operator) -> None:
    operator.keys.write_text("first 02 valid never - - admin\n")
    assert "oarlock_" not in operator.types("docker/start").stdout
    assert not [order for order in operator.orders if "keys create" in order]


def test_an_upgrade_stops_what_works_on_the_database_before_it_is_changed_and_starts_last(operator: Operator) -> None:
    done = operator.types("docker/upgrade")
    assert done.returncode == 0, done.stderr
    stopped = [order.split()[-1] for order in operator.orders if " stop " in order]
    assert set(stopped) == {"gateway", "worker", "worker-gpu", "service"}
    after = operator.orders[len(stopped) :]
    assert after[0] == "newer: compose run --rm -T service oarlock upgrade --backup /data/before-upgrade-TIME.tar"
    assert after[1] == "newer: compose up -d"


def test_an_upgrade_builds_what_changes_the_database_before_anything_stops(operator: Operator) -> None:
    done = operator.types("docker/upgrade --build")
    assert done.returncode == 0, done.stderr
    assert operator.orders[0] == "newer: compose build"
    assert "newer: compose up -d --build" in operator.orders


def test_an_upgrade_that_is_refused_starts_nothing(operator: Operator) -> None:
    assert operator.types("docker/upgrade", REFUSES="2").returncode != 0
    assert not [order for order in operator.orders if " up " in order]


def test_the_way_back_ends_in_the_older_folder(operator: Operator) -> None:
    done = operator.types("docker/roll-back 0007 ../older --build")
    assert done.returncode == 0, done.stderr
    mounted = f"-v {operator.folder / 'older' / 'models'}:/older-models:ro"
    rolled = f"newer: compose run --rm -T {mounted} service oarlock roll-back 0007 --models /older-models"
    rolled += " --backup /data/before-roll-back-TIME.tar"
    assert operator.orders[-3:] == [rolled, "newer: compose down", "older: compose up -d --build"]


def test_pinning_writes_a_digest_for_every_image_that_is_not_ours_and_again_replaces_it(operator: Operator) -> None:
    for _ in range(2):
        assert operator.types("docker/pin").returncode == 0
    lines = (operator.folder / "newer" / ".env").read_text().splitlines()
    pinned = sorted(line for line in lines if "_IMAGE=" in line)
    names = ("GRAFANA", "POSTGRES", "PROMETHEUS", "PROXY", "PYTHON", "REDIS")
    assert pinned == [f"{name}_IMAGE=redis@sha256:0123" for name in names]
    assert "COMPOSE_PROJECT_NAME=oarlock" in lines
