"""The sign of life that a container's health check looks for."""

import os
from pathlib import Path

from worker.alive import is_alive


def test_a_worker_that_never_said_anything_is_not_alive(tmp_path: Path) -> None:
    assert not is_alive(tmp_path / "alive", lease_s=15, now=1_000)


def test_a_worker_is_alive_for_two_leases_after_its_last_sign(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    file.touch()
    os.utime(file, (1_000, 1_000))
    assert is_alive(file, lease_s=15, now=1_029)
    assert not is_alive(file, lease_s=15, now=1_030)
