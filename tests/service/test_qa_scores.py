"""What dashboards are told of the scores, over HTTP."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import stdev
from typing import Any

import httpx
import pytest

from oarlock.facts import ModelFacts
from oarlock.pipeline.csv_text import to_csv
from oarlock.qa.report import Presence
from oarlock.store.scores.write import Case, Origin, Scored, add_case, append
from service.api.csv import prefers_csv
from service.api.schemas.qa import ScoreRow
from service.api.scores import DEFAULT_DAYS
from tests.fixtures.scores import compared, score
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model

pytestmark = pytest.mark.slow

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)  # a Thursday


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[httpx.Client]:
    """A service with twelve cases: every three days two of them, at noon."""
    folder = tmp_path_factory.mktemp("scored")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url)) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        with running.service.database.writing() as connection:
            for i in range(12):
                model = ModelFacts("oarlock-hn", f"1.{i % 2}", "ab" * 32)
                case = Case(f"job-{i:02}", model, "=CT 1" if i % 3 else "CT2", list(Origin)[i % 2], 1)
                lens = score("Lens_L", None, presence=Presence.PREDICTED_ONLY)
                add_case(connection, NOW + timedelta(days=i - i % 2), case, compared(score("Brain", 0.7 + 0.02 * i, 0.5), lens))
        yield client


def get(client: httpx.Client, path: str, **parameters: object) -> Any:
    answer = client.get(path, params=parameters)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def test_scores_are_paged_by_a_cursor_and_by_a_link(scored: httpx.Client) -> None:
    whole = get(scored, "/v1/qa/scores")
    assert whole["next"] is None
    assert len(whole["scores"]) == 24
    first = scored.get("/v1/qa/scores", params={"limit": 10, "from": "2026-03-06"})
    link = first.headers["link"]
    assert link.endswith('>; rel="next"')
    second = scored.get(link.split(">")[0].removeprefix("<"))
    assert second.json() == get(scored, "/v1/qa/scores", **{"limit": 10, "from": "2026-03-06", "cursor": first.json()["next"]})
    assert "link" not in second.headers
    assert first.json()["scores"] + second.json()["scores"] == whole["scores"][:20]


def test_a_row_has_no_member_but_those_of_the_contract(scored: httpx.Client) -> None:
    row = get(scored, "/v1/qa/scores", oar="Brain", limit=1)["scores"][0]
    schema = scored.get("/openapi.json").json()["components"]["schemas"]["ScoreRow"]
    assert list(row) == list(schema["properties"])
    assert (row["job_id"], row["at"]) == ("job-11", "2026-03-15T12:00:00.000Z")


@pytest.mark.parametrize(
    ("filters", "jobs"),
    [
        ({"model_version": "1.1", "scanner": "CT2"}, [9, 3]),
        ({"origin": "approved", "to": "2026-03-07"}, [3, 1]),
        ({"from": "2026-03-13", "to": "2026-03-13"}, [9, 8]),
        ({"from": "2026-03-13T12:00:00.001Z"}, [11, 10]),
        ({"from": "2026-03-13T13:00:00+01:00", "to": "2026-03-15T12:00:00Z"}, [9, 8]),
        ({"to": "2026-03-04"}, []),
        ({"model": "another"}, []),
    ],
    ids=str,
)
def test_filters(scored: httpx.Client, filters: dict[str, object], jobs: list[int]) -> None:
    rows = get(scored, "/v1/qa/scores", oar="Brain", **filters)["scores"]
    assert [row["job_id"] for row in rows] == [f"job-{i:02}" for i in jobs]


def test_csv_by_a_parameter_is_csv_by_the_header_and_wins_over_it(scored: httpx.Client) -> None:
    by_header = scored.get("/v1/qa/scores", headers={"Accept": "text/csv"}, params={"limit": 7})
    by_parameter = scored.get("/v1/qa/scores", params={"limit": 7, "format": "csv"})
    assert by_parameter.text == by_header.text
    as_json = scored.get("/v1/qa/scores", headers={"Accept": "text/csv"}, params={"format": "json"})
    assert as_json.headers["content-type"] == "application/json"


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_that_a_spreadsheet_would_calculate_is_quoted(scored: httpx.Client, begins: str) -> None:
    row = ScoreRow.model_validate(get(scored, "/v1/qa/scores", limit=1)["scores"][0])
    asked = row.model_copy(update={"scanner": f"{begins}cmd|' /C calc'!A0"})
    text = to_csv(list(ScoreRow.model_fields), [asked.model_dump(mode="json")])
    (read,) = csv.DictReader(io.StringIO(text, newline=""))
    assert read["scanner"] == f"'{begins}cmd|' /C calc'!A0"


def test_csv_has_the_same_rows(scored: httpx.Client) -> None:
    answer = scored.get("/v1/qa/scores", headers={"Accept": "text/csv"}, params={"limit": 7})
    assert answer.headers["content-type"].startswith("text/csv")
    assert 'rel="next"' in answer.headers["link"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    expected = get(scored, "/v1/qa/scores", limit=7)["scores"]
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, same in zip(rows, expected, strict=True):
        for name, value in same.items():
            text = "" if value is None else f"'{value}" if value == "=CT 1" else value if isinstance(value, str) else repr(value)
            assert row[name] == text  # a formula would be run by a spreadsheet


@pytest.mark.parametrize(
    ("accept", "csv_"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/csv", True),
        ("Text/CSV; charset=utf-8, */*;q=0.1", True),
        ("application/json, text/csv;q=0.5", False),
        ("application/json;q=0.5, text/csv", True),
        ("text/csv;q=0", False),
        ("text/csv;q=nan", False),
    ],
)
def test_what_accept_means(accept: str, csv_: bool) -> None:
    assert prefers_csv(accept) is csv_


def test_a_summary_over_the_whole_time_and_by_day(scored: httpx.Client) -> None:
    found = get(scored, "/v1/qa/summary", **{"from": "2026-03-01", "to": "2026-03-31", "alert_level": 0.75})
    assert (found["from"], found["to"], found["bucket"], found["alert_level"]) == ("2026-03-01", "2026-03-31", "day", 0.75)
    brain, lens = found["oars"]
    assert (brain["oar"], brain["n"], brain["one_sided"]) == ("Brain", 6, 0)
    scores = [0.70, 0.74, 0.78, 0.82, 0.86, 0.90]  # of the supplied ones
    assert brain["surface_dsc"]["median"] == pytest.approx(0.80)
    assert brain["surface_dsc"]["mean"] == pytest.approx(0.80)
    assert brain["surface_dsc"]["sd"] == pytest.approx(stdev(scores))
    assert (brain["surface_dsc"]["lowest"], brain["surface_dsc"]["highest"]) == (pytest.approx(0.70), pytest.approx(0.90))
    assert brain["surface_dsc"]["lower_quartile"] == pytest.approx(0.75)
    assert brain["surface_dsc"]["below_alert"] == 2 / 6
    assert brain["volumetric_dsc"]["below_alert"] == 1
    assert (lens["n"], lens["one_sided"], lens["surface_dsc"], lens["volumetric_dsc"]) == (0, 6, None, None)
    assert lens["missed"] + lens["extra"] == 6
    assert [part["start"] for part in brain["over_time"]] == [f"2026-03-{day:02}" for day in (5, 7, 9, 11, 13, 15)]
    assert [part["n"] for part in brain["over_time"]] == [1] * 6
    assert brain["over_time"][1]["surface_dsc"]["mean"] == pytest.approx(0.74)


def test_a_summary_is_of_one_origin_and_says_of_which(scored: httpx.Client) -> None:
    when = {"from": "2026-03-01", "to": "2026-03-31", "bucket": "all"}
    for asked, origin, mean in (({}, "supplied", 0.80), ({"origin": "approved"}, "approved", 0.82)):
        found = get(scored, "/v1/qa/summary", **when, **asked)
        assert (found["origin"], found["oars"][0]["surface_dsc"]["mean"]) == (origin, pytest.approx(mean))


def test_a_summary_as_csv_has_the_same_numbers(scored: httpx.Client) -> None:
    when = {"from": "2026-03-01", "to": "2026-03-31", "bucket": "week"}
    whole = get(scored, "/v1/qa/summary", **when)["oars"][0]
    rows = list(csv.DictReader(scored.get("/v1/qa/summary", params={**when, "format": "csv"}).text.splitlines()))
    assert [(row["oar"], row["start"], row["n"]) for row in rows[:3]] == [
        ("Brain", "", "6"),
        *(("Brain", part["start"], str(part["n"])) for part in whole["over_time"]),
    ]
    assert float(rows[0]["surface_dsc_mean"]) == whole["surface_dsc"]["mean"]
    assert (rows[0]["hausdorff_95_mm_mean"], whole["hausdorff_95_mm"]) == ("", None)  # of none of them it is known
    assert float(rows[0]["predicted_volume_ml_mean"]) == whole["predicted_volume_ml"]["mean"]


def test_checks_are_counted_by_organ_and_week(client: httpx.Client, running: Running) -> None:
    found = [("organ.volume", "Brain", "red"), ("organ.volume", "Eye_L", "amber")]
    model = ModelFacts("oarlock-hn", "1", "ab" * 32)
    for day in (2, 3, 9):
        with running.service.database.writing() as connection:
            append(connection, datetime(2027, 3, day, 12, tzinfo=UTC), "a-job", model, Scored("CT8", checks=found))
    when = {"from": "2027-03-01", "to": "2027-03-31", "bucket": "week", "scanner": "CT8", "oar": "Brain"}
    assert get(client, "/v1/qa/checks", **when)["checks"] == [
        {"oar": "Brain", "check": "organ.volume", "level": "red", "n": 3}
        | {"over_time": [{"start": "2027-03-01", "n": 2}, {"start": "2027-03-08", "n": 1}]}
    ]
    text = client.get("/v1/qa/checks", params={**when, "format": "csv"}).text
    assert text.splitlines() == [
        "oar,check,level,start,n",
        "Brain,organ.volume,red,,3",
        "Brain,organ.volume,red,2027-03-01,2",
        "Brain,organ.volume,red,2027-03-08,1",
    ]


@pytest.mark.parametrize(
    ("bucket", "starts"),
    [("week", ["2026-03-02", "2026-03-09"]), ("month", ["2026-03-01"]), ("all", [])],
)
def test_a_summary_by_week_and_month(scored: httpx.Client, bucket: str, starts: list[str]) -> None:
    brain = get(scored, "/v1/qa/summary", **{"from": "2026-02-01", "to": "2026-03-31", "bucket": bucket})["oars"][0]
    assert [part["start"] for part in brain["over_time"]] == starts
    assert brain["n"] == 6


def test_a_summary_that_names_no_time_is_of_the_last_days(scored: httpx.Client) -> None:
    found = get(scored, "/v1/qa/summary")
    first, last = (datetime.fromisoformat(found[name]) for name in ("from", "to"))
    assert (last - first).days == DEFAULT_DAYS - 1


@pytest.mark.parametrize(
    ("path", "parameters", "name"),
    [
        ("scores", {"from": "yesterday"}, "from"),
        ("scores", {"from": "20260305"}, "from"),  # seconds since 1970 to some
        ("summary", {"to": "0"}, "to"),
        ("scores", {"to": "2026-13-01"}, "to"),
        ("scores", {"from": "99999999999999999999"}, "from"),
        ("scores", {"from": "2026-03-06", "to": "2026-03-05"}, "to"),
        ("scores", {"oar": "Doe"}, "oar"),
        ("scores", {"origin": "Doe"}, "origin"),
        ("scores", {"limit": "0"}, "limit"),
        ("scores", {"cursor": "Doe"}, "cursor"),
        ("scores", {"scanner": "Doe" * 100}, "scanner"),
        ("summary", {"bucket": "hour"}, "bucket"),
        ("summary", {"alert_level": "1.5"}, "alert_level"),
        ("summary", {"from": "2020-01-01", "to": "2026-01-01"}, "bucket"),
        ("summary", {"from": "0001-01-01", "to": "9999-12-30", "bucket": "month"}, "bucket"),
    ],
    ids=str,
)
def test_a_parameter_that_means_nothing_is_named_and_not_repeated(
    scored: httpx.Client, path: str, parameters: dict[str, str], name: str
) -> None:
    answer = scored.get(f"/v1/qa/{path}", params=parameters)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_parameter"), answer.text
    assert answer.json()["detail"].startswith(f"The parameter '{name}' ")
    assert "Doe" not in answer.text


def test_the_examples_in_the_contract_are_of_the_shape_of_real_answers(scored: httpx.Client) -> None:
    paths = scored.get("/openapi.json").json()["paths"]

    def example(path: str, media_type: str = "application/json") -> Any:
        return paths[path]["get"]["responses"]["200"]["content"][media_type]["example"]

    row = get(scored, "/v1/qa/scores", limit=1)["scores"][0]
    assert list(example("/v1/qa/scores")["scores"][0]) == list(row)
    assert example("/v1/qa/scores", "text/csv").split("\r\n")[0] == ",".join(row)
    real, made = get(scored, "/v1/qa/summary", **{"from": "2026-03-01", "to": "2026-03-31"}), example("/v1/qa/summary")
    assert set(made) == set(real)
    assert set(made["oars"][0]) == set(real["oars"][0])
    assert set(made["oars"][0]["over_time"][0]) == set(real["oars"][0]["over_time"][0])
    assert set(made["oars"][0]["surface_dsc"]) == set(real["oars"][0]["surface_dsc"])
    names = {parameter["name"] for parameter in paths["/v1/qa/scores"]["get"]["parameters"]}
    assert names == {
        "from",
        "to",
        "model",
        "model_version",
        "scanner",
        "origin",
        "oar",
        "shadow",
        "site",
        "limit",
        "cursor",
        "format",
    }
