"""The table of scores: what a finished job leaves, and what dashboards are told of it."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Connection, select

from oarlock.errors import InvalidParameter
from oarlock.facts import ComparisonRows, ModelFacts
from oarlock.organs.catalogue import OARS
from oarlock.qa.control_chart import ControlLimits
from oarlock.qa.report import Presence
from oarlock.store import audit
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore, NewJob
from oarlock.store.jobs import JobId
from oarlock.store.leases import LeaseLost
from oarlock.store.schema import METADATA, QA_CASES
from oarlock.store.scores import write
from oarlock.store.scores.baselines import Baseline
from oarlock.store.scores.filters import Filters
from oarlock.store.scores.read import ScoreStore
from oarlock.store.scores.write import (
    BUCKETS,
    Case,
    Origin,
    Scored,
    ShadowScored,
    add_case,
    append,
    append_shadow,
    count_findings,
    day_of,
    oar_ids,
)
from tests.fixtures.clock import Clock
from tests.fixtures.scores import compared, report, score
from tests.store.test_job_store import SERIES

MODEL = ModelFacts("oarlock-hn", "1.0", "ab" * 32)
NEWER = ModelFacts("oarlock-hn", "1.1", "cd" * 32)
NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)


@pytest.fixture
def store(database: Database) -> ScoreStore:
    return ScoreStore(database)


def add(database: Database, at: datetime, found: ComparisonRows, job_id: str = "job", **changes: object) -> None:
    facts = {"model": MODEL, "scanner": "CT1", "origin": Origin.SUPPLIED, "position": 1} | changes
    with database.writing() as connection:
        add_case(connection, at, Case(job_id=job_id, **facts), found)  # type: ignore[arg-type]


def summary(store: ScoreStore, part_of: Callable[[int], int] | None = None, **filters: object) -> dict[str, object]:
    found = store.summary(Filters(site="", **filters), alert_level=0.8, part_of=part_of)  # type: ignore[arg-type]
    return {entry.oar: entry for entry in found}


# ── what a job leaves ─────────────────────────────────────────────────────────────────────────────────────────────────


def finish(database: Database, scored: Scored | None) -> None:
    jobs = JobStore(database, clock=Clock())
    jobs.create(NewJob(id=JobId("a"), series=SERIES, model=MODEL, content_sha256="c"))
    lease = jobs.leases.claim(JobId("a"), worker="w", lease_s=15)
    assert lease is not None
    jobs.leases.succeed(lease, scored=scored)
    with pytest.raises(LeaseLost):
        jobs.leases.succeed(lease, scored=scored)


def test_a_job_leaves_a_row_for_each_organ_of_each_comparison_once(database: Database, store: ScoreStore) -> None:
    first = compared(score("Parotid_L", 0.94, 0.87), score("Lens_R", None, presence=Presence.REFERENCE_ONLY))
    third = replace(report(score("Brain", 0.99)), position=3).to_rows()  # the second one could not be used
    finish(database, Scored("CT1", [first, third]))
    rows, following = store.scores(Filters(site=""), limit=10)
    assert following is None
    assert [(row["position"], row["oar"], row["presence"], row["surface_dsc"], row["volumetric_dsc"]) for row in rows] == [
        (3, "Brain", "both", 0.99, 0.99),
        (1, "Lens_R", "reference_only", None, None),
        (1, "Parotid_L", "both", 0.94, 0.87),
    ]
    row = rows[-1]
    assert (row["job_id"], row["origin"], row["scanner"], row["definition"]) == ("a", "supplied", "CT1", "surface-dsc/1")
    assert (row["model"], row["model_version"], row["model_sha256"]) == ("oarlock-hn", "1.0", "ab" * 32)
    assert (row["tolerance_mm"], row["tolerance_rounded_mm"], row["reference_volume_ml"]) == (2.85, 2.5, 31.0)


def test_a_row_says_why_numbers_are_missing_and_what_the_checks_say_of_what_was_drawn(
    database: Database, store: ScoreStore
) -> None:
    missed = replace(score("Lens_R", None, presence=Presence.REFERENCE_ONLY), reason="Lens_R is empty in the prediction.")
    finish(database, Scored("CT1", [report(score("Brain", 0.9), missed).to_rows({"Brain": "amber"})]))
    rows, _ = store.scores(Filters(site=""), limit=10)
    assert [(row["oar"], row["verdict"], row["undefined_reason"]) for row in rows] == [
        ("Brain", "amber", None),
        ("Lens_R", None, "Lens_R is empty in the prediction."),
    ]


def test_an_organ_that_neither_drew_leaves_none(database: Database, store: ScoreStore) -> None:
    add(database, NOW, compared(score("Lens_L", None, presence=Presence.NEITHER)))
    assert store.scores(Filters(site=""), limit=10) == ([], None)
    assert summary(store) == {}


def test_nothing_that_a_sender_wrote_gets_into_a_row(database: Database) -> None:
    """Names of ROIs and labels of RTSTRUCTs, and the UIDs of the patient's series."""
    finish(database, Scored("CT1", [compared(score("Parotid_L", 0.94))]))
    with database.reading() as connection:
        tables = [table for name, table in METADATA.tables.items() if name.startswith("qa_")]
        text = repr([connection.execute(select(table)).all() for table in tables])
    assert "Parotid_L" in text
    for canary in ("Doe", "LABEL", "2.25."):
        assert canary not in text


def test_the_rows_stay_when_the_job_is_purged(database: Database, store: ScoreStore) -> None:
    finish(database, Scored("CT1", [compared(score("Parotid_L", 0.94))]))
    JobStore(database).purge(JobId("a"))
    assert len(store.scores(Filters(site=""), limit=10)[0]) == 1


def test_levels_are_counted_by_organ_and_check(database: Database, store: ScoreStore) -> None:
    found = [("organ.volume", "Brain", "red"), ("organ.volume", "Brain", "red"), ("organ.volume", "Eye_L", "red")]
    for _ in range(2):
        with database.writing() as connection:
            append(connection, NOW, "a", MODEL, Scored("CT1", checks=found))
    assert store.check_counts() == [("Brain", "organ.volume", "red", 4), ("Eye_L", "organ.volume", "red", 2)]


def leave(connection: Connection) -> None:
    """What a job and its shadow run leave to be counted."""
    found = [("organ.volume", "Brain", "red"), ("organ.volume", "Eye_L", "green")]
    append(connection, NOW, "a", MODEL, Scored("CT1", checks=found))
    append_shadow(connection, NOW, "a", MODEL, ShadowScored("CT1", (), checks=found), site="")


def test_what_nobody_has_counted_is_in_what_is_read(database: Database, store: ScoreStore) -> None:
    def read() -> object:
        of_days = store.findings(Filters(site="", oar="Brain"), part_of=lambda day: day)
        return store.check_counts(), of_days, store.findings(Filters(site="", shadow=True), part_of=None)

    for _ in range(2):  # first nothing is counted, then a half
        with database.writing() as connection:
            leave(connection)
        before = read()
        count_findings(database)
        assert read() == before
    assert store.check_counts() == [("Brain", "organ.volume", "red", 2), ("Eye_L", "organ.volume", "green", 2)]


def test_counting_ends_though_more_jobs_end_meanwhile(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, count = list[int](), write._count_up_to

    def count_while_a_job_ends(connection: Connection, last: int) -> None:
        assert not counted
        counted.append(last)
        count(connection, last)
        leave(connection)

    monkeypatch.setattr(write, "_count_up_to", count_while_a_job_ends)
    with database.writing() as connection:
        leave(connection)
    count_findings(database)
    assert counted


def test_findings_of_many_jobs_are_counted_once_by_all_who_count_at_once(database: Database, store: ScoreStore) -> None:
    def work(_: int) -> None:
        for n in range(5):
            with database.writing() as connection:
                append(connection, NOW, f"job {n}", MODEL, Scored("CT1", checks=[("organ.volume", "Brain", "red")]))
            count_findings(database)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert store.check_counts() == [("Brain", "organ.volume", "red", 20)]
    assert [found.n for found in store.findings(Filters(site=""), part_of=None)] == [20]


def test_the_histogram_counts_each_bucket_with_those_below(database: Database, store: ScoreStore) -> None:
    for value in (0.0, 0.5, 0.5001, 1.0, None):
        add(database, NOW, compared(score("Brain", value, 0.3)))
    (found,) = store.histograms()
    assert (found.model, found.oar, found.total) == ("oarlock-hn", "Brain", pytest.approx(2.0001))
    assert found.counts == (2, *[3] * (len(BUCKETS) - 2), 4)


def test_workers_that_finish_at_once_lose_no_score(database: Database, store: ScoreStore) -> None:
    found = compared(*(score(oar, 0.9) for oar in ("Brain", "Parotid_L", "Lens_R")))

    def work(worker: int) -> None:
        for i in range(10):
            add(database, NOW, found, f"{worker}.{i}", model=MODEL if i % 2 else NEWER)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(store.scores(Filters(site=""), limit=1000)[0]) == 120
    assert [entry.whole.n for entry in summary(store).values()] == [40, 40, 40]  # type: ignore[attr-defined]
    assert [entry.counts[-1] for entry in store.histograms()] == [20] * 6  # three organs of two versions


# ── filters and pages ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def many(database: Database) -> list[tuple[datetime, str, str, str]]:
    """Cases of two models, scanners and origins, some at one moment: (at, job, organ, …), newest first."""
    rng = random.Random(7)
    rows = []
    for i in range(30):
        at = NOW + timedelta(hours=7 * (i // 3))
        oars = rng.sample(["Brain", "Lens_L", "Parotid_L"], rng.randint(0, 3))
        facts = {
            "model": rng.choice([MODEL, NEWER]),
            "scanner": rng.choice(["CT1", "CT2"]),
            "origin": rng.choice(list(Origin)),
        }
        add(database, at, compared(*(score(oar, rng.random()) for oar in oars)), f"job-{i:02}", **facts)
        rows.append((at, i, sorted(oars), facts))
    return [
        (at, f"job-{i:02}", oar, f"{facts['model'].version} {facts['scanner']} {facts['origin']}")  # type: ignore[attr-defined]
        for at, i, oars, facts in reversed(rows)
        for oar in oars
    ]


@pytest.mark.parametrize("limit", [1, 7])
def test_pages_hold_every_row_that_fits_once_newest_first(
    store: ScoreStore, many: list[tuple[datetime, str, str, str]], limit: int
) -> None:
    moment = NOW + timedelta(hours=14)
    fitting: list[tuple[dict[str, object], Callable[[tuple[datetime, str, str, str]], bool]]] = [
        ({}, lambda row: True),
        ({"oar": "Lens_L"}, lambda row: row[2] == "Lens_L"),
        ({"model": "oarlock-hn"}, lambda row: True),
        ({"model_version": "1.1"}, lambda row: row[3].startswith("1.1")),
        ({"scanner": "CT2", "model_version": "1.0"}, lambda row: row[3].startswith("1.0 CT2")),
        ({"origin": Origin.APPROVED}, lambda row: row[3].endswith("approved")),
        ({"since": moment}, lambda row: row[0] >= moment),
        ({"until": moment, "oar": "Brain"}, lambda row: row[0] < moment and row[2] == "Brain"),
        ({"model": "another"}, lambda row: False),
    ]
    for filters, fits in fitting:
        found, cursor = [], None
        while True:
            rows, cursor = store.scores(Filters(site="", **filters), limit=limit, cursor=cursor)  # type: ignore[arg-type]
            assert len(rows) <= limit
            found += [(row["at"], row["job_id"], row["oar"]) for row in rows]
            if cursor is None:
                break
            assert len(rows) == limit
        assert found == [row[:3] for row in many if fits(row)], filters


def test_what_comes_while_somebody_pages_moves_nothing(database: Database, store: ScoreStore, many: object) -> None:
    first, cursor = store.scores(Filters(site=""), limit=5)
    whole, _ = store.scores(Filters(site=""), limit=1000)
    add(database, NOW + timedelta(days=30), compared(score("Brain", 0.5)))
    rest, _ = store.scores(Filters(site=""), limit=1000, cursor=cursor)
    assert first + rest == whole


@pytest.mark.parametrize("cursor", ["", "x", "MTIz", "MTIzLjQ1", "MTIzLjQ1LkRvZQ", "MTIzLi0xLkJyYWlu", "9" * 200])
def test_a_cursor_that_was_not_given_is_refused(database: Database, store: ScoreStore, cursor: str) -> None:
    add(database, NOW, compared(score("Brain", 0.5)))
    with pytest.raises(InvalidParameter, match="cursor"):
        store.scores(Filters(site=""), limit=5, cursor=cursor)


# ── summaries ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_summary_is_made_of_the_very_rows(database: Database, store: ScoreStore) -> None:
    """Whatever was written in whatever order: the numbers by day are those of the rows."""
    rng = random.Random(3)
    for i in range(60):
        at = NOW + timedelta(hours=rng.randint(0, 200))
        value = rng.choice([None, rng.random()])
        presence = rng.choice([Presence.BOTH, Presence.BOTH, Presence.PREDICTED_ONLY])
        oars = rng.sample(["Brain", "Lens_L"], 2)
        add(
            database, at, compared(*(score(oar, value, rng.random(), presence) for oar in oars)), f"{i}", scanner=rng.choice("ab")
        )
    rows, _ = store.scores(Filters(site="", scanner="a"), limit=1000)
    found = store.summary(Filters(site="", scanner="a"), alert_level=0.6, part_of=lambda day: day - day % 2)
    assert [entry.oar for entry in found] == ["Brain", "Lens_L"]
    for entry in found:
        mine = [row for row in rows if row["oar"] == entry.oar]
        parts = {day_of(row["at"]) - day_of(row["at"]) % 2 for row in mine}
        assert list(entry.parts) == sorted(parts)
        for part, of in [(entry.whole, mine)] + [
            (entry.parts[day], [row for row in mine if day_of(row["at"]) - day_of(row["at"]) % 2 == day]) for day in parts
        ]:
            both = [row for row in of if row["presence"] == "both"]
            assert (part.n, part.one_sided) == (len(both), len(of) - len(both))
            for metric in ("surface_dsc", "volumetric_dsc"):
                values = [row[metric] for row in both if row[metric] is not None]
                distribution = getattr(part, metric)
                if not values:
                    assert distribution is None
                    continue
                assert distribution.n == len(values)
                assert distribution.median == pytest.approx(np.median(values))
                assert distribution.below_alert == np.mean(np.array(values) < 0.6)


def test_the_order_of_the_organs_in_the_code_says_nothing_of_what_is_stored(
    database: Database, store: ScoreStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for oar, value in (("Brain", 0.9), ("Parotid_L", 0.7), ("Glnd_Submand_R", 0.5)):
        add(database, NOW, compared(score(oar, value)))
    before = summary(store)
    monkeypatch.setattr("oarlock.store.scores.summaries._ORDER", {oar.name: -place for place, oar in enumerate(OARS)})
    assert list(summary(store)) == ["Glnd_Submand_R", "Parotid_L", "Brain"]
    assert summary(store) == before


def test_an_organ_that_was_never_scored_before_gets_an_id_of_its_own_for_ever(database: Database, store: ScoreStore) -> None:
    """Of several workers that meet new organs at once, all write the same ids."""
    new = [f"New_{i}" for i in range(4)]

    def write(worker: int) -> dict[str, int]:
        with database.writing() as connection:
            return oar_ids(connection, new[worker:] + new[:worker])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(write, range(4)))
    assert all(ids == found[0] for ids in found)
    assert sorted(found[0].values()) == list(range(len(OARS) + len(new)))
    row = dict(compared(score("Brain", 0.25)).oars[0]) | {"oar": "New_2"}
    add(database, NOW, ComparisonRows("surface-dsc/1", (row,)))
    assert summary(store)["New_2"].whole.surface_dsc.median == 0.25  # type: ignore[attr-defined]


def test_a_summary_takes_whole_days_and_filters(database: Database, store: ScoreStore) -> None:
    for days in range(4):
        add(database, NOW + timedelta(days=days), compared(score("Brain", 0.1 * days)), origin=list(Origin)[days % 2])
    midnight = datetime(2026, 3, 6, tzinfo=UTC)
    assert summary(store, since=midnight, until=midnight + timedelta(days=2))["Brain"].whole.n == 2  # type: ignore[attr-defined]
    assert summary(store, origin=Origin.APPROVED)["Brain"].whole.n == 2  # type: ignore[attr-defined]
    assert summary(store, oar="Lens_L") == summary(store, model="another") == {}


def test_a_case_has_its_moment_to_the_microsecond(database: Database, store: ScoreStore) -> None:
    at = NOW.replace(microsecond=123457)
    add(database, at, compared(score("Brain", 0.5)))
    assert store.scores(Filters(site="", since=at, until=at + timedelta(microseconds=1)), limit=5)[0][0]["at"] == at
    assert store.scores(Filters(site="", since=at + timedelta(microseconds=1)), limit=5)[0] == []
    with database.reading() as connection:
        assert connection.scalar(select(QA_CASES.c.at)) == at


# ── past patients ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_charts_begin_with_the_limits_of_past_patients_until_thirty_have_come_back(database: Database, store: ScoreStore) -> None:
    past = [0.85, 0.9, 0.88, 0.93, 0.87, 0.91]
    store.keep_baseline(Baseline(MODEL, 6, {"Brain": past}), by=audit.SYSTEM)
    store.keep_baseline(Baseline(NEWER, 6, {"Brain": [0.1, 0.2, 0.3, 0.2, 0.1]}), by=audit.SYSTEM)
    scores = [0.95, 0.3, *(0.9 + 0.001 * i for i in range(28))]
    for i, value in enumerate(scores[:-1]):
        add(database, NOW + timedelta(hours=i), compared(score("Brain", value)), f"case-{i}", origin=Origin.APPROVED)
    (chart,) = store.charts(Filters(site=""), points=50)
    assert chart.limits == ControlLimits.of_past_patients(past)
    assert chart.commissioned is not None
    assert (chart.commissioned.baseline.patients, chart.commissioned.by) == (6, "system")
    assert [(point.job_id, alarm.rule) for point in chart.points for alarm in point.alarms] == [("case-1", "beyond_limit")]
    assert (len(chart.points), len(chart.baseline)) == (29, 29)
    add(database, NOW + timedelta(hours=29), compared(score("Brain", scores[-1])), "case-29", origin=Origin.APPROVED)
    (whole,) = store.charts(Filters(site=""), points=50)
    assert (whole.commissioned, whole.limits) == (None, ControlLimits.of(scores))


def test_a_scanner_with_five_past_patients_begins_with_their_scores_and_another_with_those_of_all(
    database: Database, store: ScoreStore
) -> None:
    own, other = [0.85, 0.9, 0.88, 0.93, 0.87], [0.5, 0.6, 0.55, 0.52]
    of_scanners = {"Brain": {"CT 1": own, "CT 2": other}}
    store.keep_baseline(Baseline(MODEL, 9, {"Brain": [*own, *other]}, of_scanners=of_scanners), by=audit.SYSTEM)
    for scanner in ("CT 1", "CT 2"):
        add(database, NOW, compared(score("Brain", 0.9)), scanner, origin=Origin.APPROVED, scanner=scanner)
    limits = {chart.scanner: chart.limits for chart in store.charts(Filters(site=""), points=5)}
    assert limits == {
        "CT 1": ControlLimits.of_past_patients(own),
        "CT 2": ControlLimits.of_past_patients([*own, *other]),
    }


def test_a_sites_own_past_patients_count_before_an_operators_and_are_seen_by_no_other_site(store: ScoreStore) -> None:
    for site in ("", "north", "south"):
        store.keep_baseline(Baseline(MODEL, 6, {"Brain": [0.9]}, site), by=audit.SYSTEM)
    store.keep_baseline(Baseline(MODEL, 8, {"Brain": [0.8]}, "north"), by=audit.SYSTEM)
    assert {(one.baseline.site, one.baseline.patients) for one in store.baselines("north")} == {("", 6), ("north", 8)}
    assert len(store.baselines("")) == 3
