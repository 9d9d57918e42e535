"""The worker talks to its Redis and its database, and to nobody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
NO_HOME = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}  # where telemetry cannot be stored, the runtime says so aloud


def said_by(program: str, environment: dict[str, str]) -> str:
    without = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=without | environment, capture_output=True, text=True, check=True
    )
    return result.stderr.lower()


def test_the_runtime_does_not_even_prepare_to_report_to_its_maker() -> None:
    assert "telemetry" not in said_by("import oarlock.inference.models", NO_HOME)


def test_a_name_in_the_environment_cannot_turn_reporting_on_again() -> None:
    program = "import oarlock.inference, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    said_by(program, {"ORT_DISABLE_TELEMETRY": "0"})
