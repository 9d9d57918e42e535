"""A past for the pages: jobs in every state, and scores of contours that came back, one organ of which drifts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np

from oarlock.errors import InferenceFailed
from oarlock.facts import ModelFacts
from oarlock.store.jobs import Stage
from oarlock.store.scores.write import Case, Origin, add_case
from tests.fixtures.scores import compared, score
from tests.service.running import Running, parts

SCANNER = "SIEMENS SOMATOM go.Open Pro CT2"
DRIFTING = "Parotid_L"
CENTRES = {"Brainstem": 0.93, DRIFTING: 0.9, "SpinalCord": 0.95, "Bone_Mandible": 0.96}
"""Surface DSC of each organ, on the average."""

FIRST = datetime(2026, 1, 5, 9, tzinfo=UTC)


def give_a_past(running: Running, job_id: str, *, cases: int = 46) -> None:
    """Scores of approved contours, one case each working day; the last ones of one organ are worse."""
    rng = np.random.default_rng(4)
    model = ModelFacts("oarlock-hn", "1.2.3", "ab" * 32)
    for number in range(cases):
        comparison = compared(*(score(oar, _value(rng, oar, number, cases)) for oar in CENTRES))
        case = Case(job_id, model, SCANNER, Origin.APPROVED, 1, f"{number:064x}")
        with running.service.database.writing() as connection:
            add_case(connection, FIRST + timedelta(days=1.4 * number), case, comparison)


def _value(rng: np.random.Generator, oar: str, number: int, cases: int) -> float:
    drop = 0.09 if oar == DRIFTING and number >= cases - 5 else 0.0
    return float(np.clip(CENTRES[oar] - drop + rng.normal(0, 0.016), 0, 1))


def post_others(running: Running, series: Sequence[Path]) -> dict[str, str]:
    """One job in each state that is not success: ids by state."""
    with httpx.Client(base_url=running.url, timeout=60) as client:
        posted = {
            state: client.post("/v1/jobs", files=parts(series), data={"label": f"planning {state}"}).raise_for_status().json()
            for state in ("failed", "cancelled", "running", "queued")
        }
        running.store.leases.fail(running.claim(posted["failed"]), InferenceFailed(reason="the session ran out of memory"))
        client.post(posted["cancelled"]["links"]["cancel"]).raise_for_status()
    lease = running.claim(posted["running"])
    running.store.leases.progress(lease, stage=Stage.INFERRING, progress=0.42, lease_s=3600)
    return {state: str(job["id"]) for state, job in posted.items()}
