"""The service keeps to its OpenAPI document. `make fuzz` holds them against each other for longer."""

from pathlib import Path

import pytest

from tests.fuzz import contract

pytestmark = pytest.mark.slow

SEED = "20260305"


@pytest.mark.parametrize(
    "phases",
    [pytest.param("examples", marks=pytest.mark.slow), pytest.param("coverage,stateful", marks=pytest.mark.long("oracle"))],
)
def test_the_service_answers_as_its_document_says(phases: str, tmp_path: Path, redis_url: str) -> None:
    with contract.service(tmp_path, redis_url) as called:
        done = contract.hold(called, tmp_path, "--seed", SEED, "--phases", phases, "-n", "3")
    assert done.returncode == 0, done.stdout + done.stderr
