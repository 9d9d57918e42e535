"""What the gateway is asked through the service: done once it is told, told until it is noted, done again after any end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.asked import Asked
from gateway.configuration import Configuration
from gateway.dimse.retrieving import Brought, Wanted
from gateway.errors import PeerFailed, ServiceAway, ServiceRefused
from gateway.rules import Sent
from gateway.service_client import Task
from gateway.settings import GatewaySettings
from gateway.store import Store, series_id
from tests.fixtures.organs import Series, write_series
from tests.gateway.conftest import Desk, MakeDesk

pytestmark = pytest.mark.slow

ARCHIVE = {"name": "pacs", "title": "PACS", "host": "127.0.0.1", "port": 104, "archive": True}
OUT = {"name": "out", "path": "/out"}
CONFIGURATION = {"peer": [ARCHIVE], "folder": [OUT], "rule": [{"name": "all", "send": ["out"]}]}
FROM_PACS = Sent("PACS", "OARLOCK")


@dataclass
class Counter:
    """The service's side of it: what is asked, what was reported, what was told."""

    tasks: list[Task] = field(default_factory=list)
    reports: list[tuple[str, Sequence[str], list[dict[str, Any]]]] = field(default_factory=list)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    away: bool = False

    def report(self, name: str, archives: Sequence[str], series: list[dict[str, Any]]) -> list[Task]:
        if self.away:
            raise ServiceAway("the service does not answer")
        self.reports.append((name, archives, series))
        return self.tasks

    def tell_task(self, name: str, task: Task, **outcome: Any) -> None:
        assert name == "here"
        if self.away:
            raise ServiceAway("the service does not answer")
        self.told.append((task.id, outcome))


@dataclass
class Asking:
    """A desk with a counter at which things are asked of it."""

    desk: Desk
    counter: Counter
    asked: Asked

    def look(self, seconds: float = 6.0) -> None:
        """Report, fetch and post once, this many seconds later."""
        self.desk.clock.now += seconds
        self.asked.report()
        self.asked.fetch()
        self.desk.posting.step()
        self.asked.fetch()

    @property
    def ends(self) -> list[tuple[str, dict[str, Any]]]:
        return [(one, outcome) for one, outcome in self.counter.told if outcome["state"] != "running"]


Fetch = Callable[..., Brought]
MakeAsking = Callable[..., Asking]


@pytest.fixture
def make_asking(make_desk: MakeDesk, tmp_path: Path) -> MakeAsking:
    def make(fetch: Fetch) -> Asking:
        desk = make_desk(Configuration.model_validate(CONFIGURATION))
        return Asking(desk, counter := Counter(), again(desk, counter, fetch))

    return make


def again(desk: Desk, counter: Counter, fetch: Fetch) -> Asked:
    """The gateway that is started anew on the same folder."""
    settings = GatewaySettings(data=desk.data, name="here", report_s=5)
    service: Any = counter
    return Asked(desk.store, service, Configuration.model_validate(CONFIGURATION), desk.inbox, settings=settings, fetch=fetch)


def retrieval(series: Series, token: int = 1, **wanted: Any) -> Task:
    asked: dict[str, Any] = {
        "archive": "pacs",
        "series_instance_uid": series.header.series_instance_uid,
        "study_instance_uid": None,
    }
    asked |= {"called": None, "structure_sets": False, "priors": 0}
    return Task("r1", "retrieve", token, asked | wanted)


def brings(desk: Desk, *files: Path, priors: tuple[str, ...] = (), note: str = "") -> Brought:
    for path in files:
        desk.inbox.take(path.read_bytes(), FROM_PACS, association=None)
    return Brought(len(files), priors, note)


def test_a_retrieval_ends_with_its_job_and_is_told_again_until_the_service_has_noted_it(
    make_asking: MakeAsking, ct: Series
) -> None:
    fetched: list[tuple[str, Wanted]] = []

    def fetch(archive: Any, title: str, wanted: Wanted, *_: Any) -> Brought:
        fetched.append((title, wanted))
        return brings(asking.desk, *ct.files)

    asking: Asking = make_asking(fetch)
    asking.counter.tasks = [retrieval(ct)]
    asking.look()
    assert (asking.ends, asking.counter.told[0][1]["instances"]) == ([], len(ct.files))
    asking.counter.away = True
    asking.look(61)  # nobody announced how many there are
    asking.counter.away = False
    asking.look()
    job = {"state": "succeeded", "job_id": "job-1", "prior_jobs": [], "instances": len(ct.files), "detail": None}
    assert asking.ends == [("r1", job)]
    asking.look()  # the answer to a report may be older than the end
    assert (asking.ends, fetched) == ([("r1", job)], [("OARLOCK", Wanted(ct.header.series_instance_uid))])


def test_killed_at_any_moment_a_retrieval_is_done_again_and_comes_to_the_same_job(make_asking: MakeAsking, ct: Series) -> None:
    asking: Asking = make_asking(lambda *_: brings(asking.desk, *ct.files))
    asking.counter.tasks = [retrieval(ct)]
    for _ in range(3):  # after the files came, after the series was posted, after the end was told
        asking.asked = again(asking.desk, asking.counter, lambda *_: brings(asking.desk, *ct.files))
        asking.look(61)
        asking.look()
    assert {outcome["job_id"] for _, outcome in asking.ends} == {"job-1"}
    assert len(asking.desk.service.posts) == 1


def test_an_archive_that_is_away_is_asked_again_and_the_last_reason_is_told(make_asking: MakeAsking, ct: Series) -> None:
    tries: list[float] = []

    def fetch(*_: Any) -> Brought:
        tries.append(asking.desk.clock.now)
        raise PeerFailed("it does not answer")

    asking: Asking = make_asking(fetch)
    asking.counter.tasks = [retrieval(ct)]
    for _ in range(60):
        asking.look(10)
    assert [round(after - before, -1) for before, after in pairwise(tries)] == [20, 40, 80, 160]
    assert asking.counter.told[0] == ("r1", {"state": "running", "detail": "pacs: it does not answer (tried again in 20 s)"})
    assert asking.ends == [("r1", {"state": "failed", "detail": "pacs: it does not answer"})]


def refused(desk: Desk) -> str:
    desk.service.refuses = ServiceRefused(422, "series.missing_slices", "Between slices 1 and 2 …")
    return "series.missing_slices: Between slices 1 and 2 …"


WHY_NOT: dict[str, tuple[dict[str, Any], Callable[[Desk], str]]] = {
    "the archive is gone": ({"archive": "elsewhere"}, lambda _: "The archive is not in this gateway's configuration any more."),
    "not our title": ({"called": "OTHER"}, lambda _: "OTHER is not one of this gateway's titles (OARLOCK)."),
    "refused": ({}, refused),
}


@pytest.mark.parametrize("case", WHY_NOT)
def test_a_retrieval_of_which_no_job_comes_says_why(make_asking: MakeAsking, ct: Series, case: str) -> None:
    wanted, prepare = WHY_NOT[case]
    asking: Asking = make_asking(lambda *_: brings(asking.desk, *ct.files))
    why = prepare(asking.desk)
    asking.counter.tasks = [retrieval(ct, **wanted)]
    asking.look()
    asking.look(61)
    ((_, outcome),) = asking.ends
    assert (outcome["state"], outcome["detail"]) == ("failed", why)


# ── earlier series ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prior_is_contoured_for_qa_alone_until_somebody_sends_it(make_asking: MakeAsking, ct: Series, tmp_path: Path) -> None:
    prior = write_series(tmp_path / "prior", seed="a prior")
    uid = prior.header.series_instance_uid

    def fetch(*_: Any) -> Brought:
        asking.desk.store.mark_prior(series_id(uid, "OARLOCK"))
        found = brings(asking.desk, *ct.files, *prior.files, priors=(uid,))
        asking.desk.store.forget_marks()
        return found

    asking: Asking = make_asking(fetch)
    asking.counter.tasks = [retrieval(ct, priors=1)]
    asking.look()
    asking.look(61)
    ((_, outcome),) = asking.ends
    posts = {str(post.job): post.route for post in asking.desk.store.posts()}
    assert (posts[outcome["job_id"]].places, posts[outcome["job_id"]].priority) == (("out",), "normal")
    (of_prior,) = outcome["prior_jobs"]
    assert (posts[of_prior].places, posts[of_prior].priority) == ((), "low")
    asking.desk.service.jobs |= dict.fromkeys(posts, "succeeded")
    asking.look(61)
    assert [one.post for one in asking.desk.store.deliveries()] == [1]
    asking.desk.receive(*prior.files)
    asking.desk.after(61)
    newest = asking.desk.store.posts()[-1]
    assert (newest.series, newest.route.places, newest.supersedes) == (series_id(uid, "OARLOCK"), ("out",), 2)


# ── what takes no time ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_report_names_what_is_no_job_by_digests_and_a_series_of_it_can_be_completed(
    make_asking: MakeAsking, ct: Series
) -> None:
    asking = make_asking(brings)
    asking.desk.receive(*ct.files[:5], released=False)
    asking.look()
    ((name, archives, (waits,)),) = asking.counter.reports
    assert (name, list(archives), waits["state"], waits["images"], waits["calling"]) == ("here", ["pacs"], "coming_in", 5, "CT1")
    assert ct.header.series_instance_uid not in str(waits)
    asking.counter.tasks = [Task("c1", "complete", 1, {"series": waits["id"]})]
    for _ in range(2):  # the answer to its end was lost: it is asked again
        asking.look()
    assert asking.counter.told == [("c1", {"state": "succeeded"})] * 2
    assert [len(files) for files, _, _ in asking.desk.service.posts] == [5]
    assert asking.counter.reports[-1][2] == []
    for again, (series, state) in enumerate({waits["id"]: "succeeded", "gone": "failed"}.items()):
        asking.counter.tasks = [Task(f"again {again}", "complete", 1, {"series": series})]  # as one asks that was started again
        asking.look()
        assert asking.ends[-1][1]["state"] == state


def test_a_series_that_the_service_refused_is_not_said_to_have_been_completed(make_asking: MakeAsking, ct: Series) -> None:
    asking = make_asking(brings)
    asking.desk.receive(*ct.files[:5], released=False)
    asking.look()
    ((_, _, (waits,)),) = asking.counter.reports
    asking.counter.tasks = [Task("c1", "complete", 1, {"series": waits["id"]})]
    for _ in range(2):
        asking.look()
    with asking.desk.store.writing() as connection:
        assert connection.execute("UPDATE posts SET state = 'refused'").rowcount == 1
    asking.counter.tasks = [Task("c2", "complete", 1, {"series": waits["id"]})]
    asking.look()
    assert [outcome["state"] for one, outcome in asking.counter.told if one == "c2"] == ["failed"]


def test_results_are_sent_again_and_a_job_that_nobody_knows_is_said(make_asking: MakeAsking, ct: Series) -> None:
    asking = make_asking(brings)
    asking.desk.receive(*ct.files)
    asking.desk.after(3)
    asking.desk.service.jobs["job-1"] = "succeeded"
    asking.desk.after(3)
    (delivery,) = asking.desk.store.deliveries()
    asking.desk.store.change_delivery(delivery.id, state="dead", attempts=20)
    asking.counter.tasks = [Task("s1", "resend", 1, {"job_id": "job-1", "place": "out"})]
    asking.look()
    asking.counter.tasks = [Task("s2", "resend", 1, {"job_id": "job-9", "place": None})]
    asking.look()
    assert [(one, outcome["state"]) for one, outcome in asking.counter.told] == [("s1", "succeeded"), ("s2", "failed")]
    assert [(one.state, one.attempts) for one in asking.desk.store.deliveries()] == [("waiting", 0)]


def test_a_table_of_an_earlier_version_gets_what_it_lacks(make_desk: MakeDesk, ct: Series) -> None:
    desk = make_desk()
    desk.receive(*ct.files)
    with desk.store.writing() as connection:
        connection.execute("DROP TABLE priors")
        connection.execute("PRAGMA user_version=1")
    desk.store.close()
    with_all = Store(desk.data)
    assert with_all.is_prior("none") is False
    assert len(with_all.images(series_id(ct.header.series_instance_uid, "OARLOCK"))) == len(ct.files)
    with_all.close()
