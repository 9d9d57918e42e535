"""Shadow runs: a second model draws a finished job, and its scores are all that comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from oarlock.errors import DeviceOutOfMemory, ManifestInvalid
from oarlock.facts import ModelFacts
from oarlock.pipeline.comparison import NO_SITE_FILE
from oarlock.rtstruct.profiles import GENERIC, GENERIC_NAME
from oarlock.rtstruct.reader import read_structure_set
from oarlock.segmentation.segment import Model
from oarlock.store.audit import SYSTEM
from oarlock.store.files import RTSTRUCT, SHADOW_RTSTRUCT
from oarlock.store.jobs import Job, JobId, JobState
from oarlock.store.schema import SHADOWS
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.read import ScoreStore
from oarlock.store.shadows import ShadowState
from tests.fixtures.scores import compared, score
from tests.worker.conftest import House
from worker.jobs import contour
from worker.shadow import ShadowRuns

pytestmark = pytest.mark.slow

SECOND = ModelFacts("second", "1", "5e" * 32)


@dataclass
class Shadows:
    """A house whose finished jobs are drawn by a second model too: the same network under another name."""

    house: House
    before: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.scores = ScoreStore(self.house.database, clock=self.house.clock)

    def second(self, facts: ModelFacts) -> Model:
        assert facts == SECOND
        self.before()
        return replace(self.house.model(None), manifest=replace(self.house.manifest, name="second", sha256=SECOND.sha256))

    def finished(self, series: Path, *others: Path, job_id: str = "job-1") -> JobId:
        house = self.house
        posted = house.post(series, *others, job_id=job_id)
        shared: dict[str, Any] = {"store": house.store, "storage": house.storage, "worker": "test", "lease_s": 60.0}
        contour(posted, models=house.model, shadow_of=lambda _: SECOND, **shared)
        assert house.store.get(posted).state is JobState.SUCCEEDED
        return posted

    def ended(self, series: Path, job_id: str = "job-1") -> JobId:
        """A job that ended well, without its results."""
        posted = self.house.post(series, job_id=job_id)
        lease = self.house.store.leases.claim(posted, worker="test", lease_s=60.0)
        assert lease is not None
        self.house.store.leases.succeed(lease, shadow=SECOND)
        return posted

    def run(self, job_id: JobId, **options: Any) -> tuple[ShadowState, int, str | None]:
        """Run once; where it stands then, how often it was begun, and why it was dropped."""
        given: dict[str, Any] = {"store": self.house.store, "scores": self.scores, "storage": self.house.storage}
        given |= {"models": self.second, "worker": "test", "profiles": {GENERIC_NAME: GENERIC}, "site_of": lambda _: NO_SITE_FILE}
        ShadowRuns(**(given | options)).run(job_id)
        with self.house.database.reading() as connection:
            row = connection.execute(SHADOWS.select().where(SHADOWS.c.job_id == job_id)).one()
        return ShadowState(row.state), row.attempts, row.note

    def rows(self, **filters: Any) -> list[dict[str, Any]]:
        return self.scores.scores(Filters(site="", **filters), limit=100)[0]


@pytest.fixture
def shadows(house: House) -> Shadows:
    return Shadows(house)


@pytest.fixture(scope="module")
def supplied(series: Path, tmp_path_factory: pytest.TempPathFactory, tiny_manifest: object) -> Path:
    """An RTSTRUCT of the series that somebody drew: here the tiny model itself."""
    made = House(tmp_path_factory.mktemp("drawn"), tiny_manifest)  # type: ignore[arg-type]
    job_id = made.post(series, job_id="another")
    contour(job_id, store=made.store, storage=made.storage, models=made.model, worker="test", lease_s=60.0)
    path = made.storage.result(job_id, RTSTRUCT)
    made.database.close()
    return path


def test_what_a_second_model_draws_is_scored_as_its_own_and_nothing_of_it_is_delivered(
    shadows: Shadows, series: Path, supplied: Path
) -> None:
    """The networks are equal, so each organ that both drew agrees wholly with what was delivered."""
    job_id = shadows.finished(series, supplied)
    job = shadows.house.data / "jobs" / job_id
    before = {path: path.read_bytes() for path in job.rglob("results-*/*")}
    assert shadows.run(job_id) == (ShadowState.DONE, 1, None)
    assert {path: path.read_bytes() for path in job.rglob("results-*/*")} == before
    assert sorted(path.name for path in job.iterdir()) == ["input", "results-1", "returned"]

    found = shadows.rows(shadow=True)
    assert {(row["model"], row["shadow"], row["origin"]) for row in found} == {
        ("second", True, "supplied"),
        ("second", True, "delivered"),
    }
    assert all(row["surface_dsc"] == 1.0 for row in found if row["origin"] == "delivered")
    drawn, delivered = (
        shadows.house.storage.returned_path(job_id, SHADOW_RTSTRUCT),
        shadows.house.storage.result(job_id, RTSTRUCT),
    )
    assert read_structure_set(drawn).sop_instance_uid != read_structure_set(delivered).sop_instance_uid
    assert b"second" in drawn.read_bytes()
    assert b"UNAPPROVED" in drawn.read_bytes()

    # What was delivered is summed as if there were no shadow; who names the model sees it.
    assert {row["model"] for row in shadows.rows()} == {"tiny"}
    (brain, *_) = shadows.scores.summary(Filters(site=""), alert_level=0.8, part_of=None)
    assert brain.whole.n == 1
    assert {row["model"] for row in shadows.rows(model="second")} == {"second"}
    assert {entry.model for entry in shadows.scores.histograms()} == {"tiny"}
    assert {entry.model for entry in shadows.scores.histograms(shadow=True)} == {"second"}


def test_what_is_approved_is_compared_with_both_whichever_came_first(shadows: Shadows, series: Path, supplied: Path) -> None:
    early, late = shadows.finished(series), shadows.finished(series, job_id="job-2")
    shadows.house.storage.keep_returned(early, "aa.dcm", supplied.read_bytes())
    rows = compared(score("Brain", 0.9))
    assert shadows.scores.approve(shadows.house.store.get(early), "CT", rows, "aa", by=SYSTEM)
    for job_id in (early, late):
        assert shadows.run(job_id)[0] is ShadowState.DONE
    job = shadows.house.store.get(late)
    assert shadows.scores.approve(job, "CT", rows, "aa", by=SYSTEM)
    assert shadows.scores.approve(job, "CT", rows, "aa", by=SYSTEM, shadow=SECOND)
    assert not shadows.scores.approve(job, "CT", rows, "aa", by=SYSTEM, shadow=SECOND)
    found = {
        (row["job_id"], row["model"]) for row in shadows.rows(origin="approved") + shadows.rows(origin="approved", shadow=True)
    }
    assert found == {(job_id, model) for job_id in (early, late) for model in ("tiny", "second")}
    assert [one.position for one in shadows.scores.returns(late)] == [1]  # that of the shadow is not listed with the job's


def test_what_is_approved_while_a_run_is_under_way_is_not_missed(
    shadows: Shadows, series: Path, supplied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = shadows.finished(series)
    shadows.house.storage.keep_returned(job_id, "aa.dcm", supplied.read_bytes())
    seen = ShadowRuns._last_approved

    def approve_behind_its_back(runs: ShadowRuns, job: Job) -> str | None:
        found = seen(runs, job)
        shadows.scores.approve(job, "CT", compared(score("Brain", 0.9)), "aa", by=SYSTEM)
        return found

    monkeypatch.setattr(ShadowRuns, "_last_approved", approve_behind_its_back)
    assert shadows.run(job_id)[0] is ShadowState.DONE
    assert {row["model"] for row in shadows.rows(origin="approved", shadow=True)} == {"second"}


def test_a_run_makes_room_for_every_job_and_is_not_blamed_for_it(shadows: Shadows, series: Path) -> None:
    job_id = shadows.ended(series)
    shadows.before = lambda: shadows.house.post(series, job_id="urgent")  # a job comes while the model is being loaded
    ticks = iter(range(0, 1000, 10))
    assert shadows.run(job_id, clock=lambda: next(ticks)) == (ShadowState.WAITING, 0, None)
    shadows.before = lambda: pytest.fail("begun although a job is queued")
    assert shadows.run(job_id) == (ShadowState.WAITING, 0, None)
    assert shadows.house.store.shadows.due(5) == []
    assert shadows.rows(shadow=True) == []


def test_a_worker_that_ends_puts_its_run_back_and_one_that_was_killed_three_times_is_the_last(
    shadows: Shadows, series: Path
) -> None:
    job_id = shadows.ended(series)
    assert shadows.run(job_id, stopping=lambda: True) == (ShadowState.WAITING, 0, None)
    for _ in range(3):
        held = shadows.house.store.shadows.claim(job_id, worker="killed")
        assert held is not None
        assert shadows.house.store.shadows.take_back({"killed", "other"}) == []
        assert shadows.house.store.shadows.take_back({"other"}) == [job_id]
    assert shadows.run(job_id) == (ShadowState.DROPPED, 3, "job.attempts_exhausted")


def _raise(error: Exception) -> Any:
    raise error


def test_what_may_pass_is_tried_again_and_what_cannot_be_is_dropped_with_its_reason(shadows: Shadows, series: Path) -> None:
    job_id = shadows.ended(series)
    shadows.before = lambda: _raise(DeviceOutOfMemory(device="cpu"))
    assert shadows.run(job_id) == (ShadowState.WAITING, 1, None)
    shadows.before = lambda: _raise(ManifestInvalid(model="second", reason="it is gone"))
    assert shadows.run(job_id) == (ShadowState.DROPPED, 2, "model.manifest_invalid")
    assert shadows.house.store.get(job_id).state is JobState.SUCCEEDED


def test_retention_is_obeyed(shadows: Shadows, series: Path) -> None:
    """A run whose job's input is over is dropped; one whose job is purged meanwhile leaves nothing."""
    without_input, purged = shadows.ended(series), shadows.ended(series, "job-2")
    shadows.house.storage.drop_input(without_input)
    assert shadows.run(without_input) == (ShadowState.DROPPED, 1, "job.expired")

    def purge() -> None:
        shadows.house.store.purge(purged)
        shadows.house.storage.purge(purged)

    shadows.before = purge
    with pytest.raises(Exception, match="No row was found"):
        shadows.run(purged)
    assert shadows.rows(shadow=True) == []
    assert not (shadows.house.data / "jobs" / purged).exists()
