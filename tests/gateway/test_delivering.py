"""Results on their way home: repeated until they arrive, or dead letters that are seen and sent again."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from gateway.configuration import Configuration
from gateway.errors import PeerFailed, ServiceAway
from oarlock.reporting.encapsulated import to_encapsulated_pdf
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series
from tests.gateway.conftest import Desk, MakeDesk

pytestmark = pytest.mark.slow

YEAR_S = 31_536_000
TO_OUT = {"name": "all", "send": ["out"]}
PDF = b"%PDF-1.7 a report of odd length\n%%EOF\n"


@pytest.fixture(scope="module")
def rtstruct(ct: Series, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("result") / "rtstruct.dcm"
    write_rtstruct(path, ct.masks, ct.header, AUTHORSHIP)
    return path.read_bytes()


DoneDesk = Callable[..., Desk]


@pytest.fixture
def done(make_desk: MakeDesk, ct: Series, rtstruct: bytes, tmp_path: Path) -> DoneDesk:
    """A desk on which a series has just been contoured; its results go into the folder "out"."""

    def make(**rule: object) -> Desk:
        (tmp_path / "out").mkdir()
        tables = {
            "folder": [{"name": "out", "path": str(tmp_path / "out")}],
            "rule": [{"name": "all", "send": ["out"], **rule}],
        }
        desk = make_desk(Configuration.model_validate(tables))
        desk.service.results = {"rtstruct": rtstruct}
        desk.receive(*ct.files)
        desk.after(3)
        desk.service.jobs["job-1"] = "succeeded"
        desk.after(3)
        return desk

    return make


def standing(desk: Desk) -> list[tuple[str, str, int]]:
    return [(one.result, one.state, one.attempts) for one in desk.store.deliveries()]


def test_a_result_arrives_byte_for_byte_under_a_name_of_its_own_and_the_service_is_told(
    done: DoneDesk, rtstruct: bytes, tmp_path: Path
) -> None:
    desk = done()
    desk.delivering.step("out")
    desk.delivering.tell()
    desk.delivering.tell()
    (file,) = (tmp_path / "out").iterdir()
    uid = str(pydicom.dcmread(BytesIO(rtstruct)).SOPInstanceUID)
    assert (file.name, file.read_bytes()) == (f"RS.{uid}.dcm", rtstruct)
    assert [(one.place, one.result, one.state, one.attempts) for one in desk.service.told] == [
        ("out", "rtstruct", "delivered", 1)
    ]


def test_a_place_that_is_away_for_an_hour_gets_its_result_ten_minutes_after_its_return(done: DoneDesk, tmp_path: Path) -> None:
    desk = done()
    (tmp_path / "out").rename(tmp_path / "away")
    for _ in range(60):
        desk.delivering.step("out")
        desk.clock.now += 60
    assert standing(desk)[0][1] == "waiting"
    assert desk.store.deliveries()[0].note == "it cannot be written to (FileNotFoundError)"
    (tmp_path / "away").rename(tmp_path / "out")
    desk.clock.now += 600
    desk.delivering.step("out")
    assert standing(desk)[0][1] == "delivered"


def test_after_its_attempts_a_delivery_is_a_dead_letter_until_it_is_sent_again(done: DoneDesk, tmp_path: Path) -> None:
    desk = done()
    (tmp_path / "out").rename(tmp_path / "away")
    for _ in range(25):
        desk.delivering.step("out")
        desk.clock.now += 600
    assert standing(desk) == [("rtstruct", "dead", 20)]
    assert desk.store.counts()["deliveries.dead"] == 1
    (tmp_path / "away").rename(tmp_path / "out")
    assert desk.store.resend("job-1", desk.clock()) == 1
    desk.delivering.step("out")
    assert standing(desk) == [("rtstruct", "delivered", 1)]


def test_a_refusal_for_good_is_a_dead_letter_at_once(done: DoneDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = done()

    def refuse(*_: object) -> None:
        raise PeerFailed("it answers C-STORE with status A900", final=True)

    monkeypatch.setattr("gateway.delivering.deliver", refuse)
    desk.delivering.step("out")
    assert standing(desk) == [("rtstruct", "dead", 1)]


def test_while_the_service_is_away_no_attempt_counts(done: DoneDesk) -> None:
    desk = done()
    desk.service.away = True
    for _ in range(30):
        desk.delivering.step("out")
        desk.clock.now += 60
    assert standing(desk) == [("rtstruct", "waiting", 0)]


def test_a_result_at_which_the_service_fails_is_a_dead_letter_in_the_end_and_the_others_go(
    done: DoneDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = done(results=["report", "rtstruct"])
    result = desk.service.result

    def broken(job: str, name: str) -> bytes | None:
        if name == "report":
            raise ServiceAway("the service answers 500", broken=True)
        return result(job, name)

    monkeypatch.setattr(desk.service, "result", broken)
    for _ in range(20):
        desk.delivering.step("out")
        desk.clock.now += 600
    assert standing(desk) == [("report", "dead", 20), ("rtstruct", "delivered", 1)]


def test_a_result_that_the_service_does_not_offer_is_dropped_and_the_others_go(done: DoneDesk, tmp_path: Path) -> None:
    desk = done(results=["seg", "rtstruct", "report"])
    desk.service.results["report"] = to_encapsulated_pdf(PDF, desk.service.results["rtstruct"], "1")
    desk.delivering.step("out")
    assert standing(desk) == [("seg", "dropped", 0), ("rtstruct", "delivered", 1), ("report", "delivered", 1)]
    (report,) = (tmp_path / "out").glob("*.pdf")
    assert report.read_bytes() == PDF


def test_our_own_rtstruct_that_an_archive_sends_back_changes_nothing(done: DoneDesk, rtstruct: bytes, tmp_path: Path) -> None:
    desk = done()
    desk.delivering.step("out")
    (tmp_path / "ours.dcm").write_bytes(rtstruct)
    desk.receive(tmp_path / "ours.dcm")
    desk.after(3)
    assert (len(desk.service.posts), desk.service.returned) == (1, [])
    assert desk.store.loose_structure_sets() == {}


def test_a_rule_can_have_the_job_purged_once_its_results_are_home(done: DoneDesk) -> None:
    desk = done(keep="2d")
    desk.delivering.tidy()
    assert desk.service.purged == []
    desk.delivering.step("out")
    desk.clock.now += 2 * 86_400 - 1
    desk.delivering.tidy()
    assert desk.service.purged == []
    desk.clock.now += 2
    desk.delivering.tidy()
    desk.delivering.tidy()
    assert desk.service.purged == ["job-1"]


def test_a_dead_letter_keeps_its_job_for_a_month_and_no_longer(done: DoneDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = done(keep="2d")

    def refuse(*_: object) -> None:
        raise PeerFailed("it answers C-STORE with status A900", final=True)

    monkeypatch.setattr("gateway.delivering.deliver", refuse)
    desk.delivering.step("out")
    for seconds, purged in ((30 * 86_400 - 1, []), (2, ["job-1"])):
        desk.clock.now += seconds
        desk.delivering.tidy()
        assert desk.service.purged == purged
    desk.delivering.tell()
    desk.delivering.forget(86_400, 86_400)
    assert desk.store.posts() == []


def test_the_results_of_a_job_that_failed_and_was_tried_again_at_the_service_go_home(make_desk: MakeDesk, ct: Series) -> None:
    desk = make_desk(Configuration.model_validate({"folder": [{"name": "out", "path": "/out"}], "rule": [TO_OUT]}))
    desk.receive(*ct.files)
    desk.after(3)
    for state in ("failed", "running", "succeeded"):
        desk.service.jobs["job-1"] = state
        desk.after(61)
    desk.after(61)
    assert standing(desk) == [("rtstruct", "waiting", 0)]


@pytest.mark.parametrize("home", [True, False])
def test_a_series_is_forgotten_with_its_files_once_its_results_are_home_for_a_day(done: DoneDesk, *, home: bool) -> None:
    desk = done()
    if home:
        desk.delivering.step("out")
        desk.delivering.tell()
    desk.clock.now += 86_401
    desk.delivering.forget(86_400, YEAR_S)
    assert (desk.store.series(held=True) == []) is home
    assert (desk.store.paths() == set()) is home
    desk.clock.now += YEAR_S
    desk.delivering.forget(86_400, YEAR_S)
    assert (desk.store.series() == []) is home


def test_contours_that_are_approved_weeks_later_go_to_their_job_and_so_does_another_version_of_them(
    done: DoneDesk, rtstruct: bytes, tmp_path: Path
) -> None:
    desk = gone_home(done())
    versions = []
    for days, comment in ((20, "first"), (5, "second")):
        desk.clock.now += days * 86_400
        versions.append(approved(rtstruct, comment, tmp_path))
        desk.service.away = True
        desk.receive(versions[-1])
        desk.after(3)
        desk.clock.now += 2 * 86_400
        desk.delivering.forget(86_400, YEAR_S)  # what waits for the service is not forgotten
        desk.service.away = False
        desk.after(61)
        desk.after(3)
    assert desk.service.returned == [("job-1", path.read_bytes()) for path in versions]
    assert len(desk.service.posts) == 1


def test_a_series_whose_contours_wait_for_the_service_is_not_forgotten(done: DoneDesk, rtstruct: bytes, tmp_path: Path) -> None:
    desk = gone_home(done())
    desk.service.away = True
    desk.receive(approved(rtstruct, "late", tmp_path))
    desk.after(YEAR_S)
    desk.delivering.forget(86_400, YEAR_S)
    assert len(desk.store.series()) == 1


def test_a_series_that_is_sent_again_after_its_images_are_gone_is_posted_again(done: DoneDesk, ct: Series) -> None:
    desk = gone_home(done())
    desk.receive(*ct.files)
    desk.after(3)
    assert [(post.state, post.job, post.supersedes) for post in desk.store.posts()] == [
        ("succeeded", "job-1", None),
        ("succeeded", "job-1", None),
    ]


def test_contours_that_no_series_came_to_are_forgotten_with_a_line_in_the_log_without_their_uid(
    desk: Desk, rtstruct: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk.receive(approved(rtstruct, "alone", tmp_path))
    desk.after(86_401)
    desk.delivering.forget(86_400, YEAR_S)
    (record,) = [record for record in caplog.records if record.name == "gateway.delivering"]
    assert (record.__dict__["count"], "1.2." in str(record.__dict__), desk.store.paths()) == (1, False, set())


def test_jobs_that_failed_or_were_superseded_are_purged_by_their_rule_before_their_series_is_forgotten(
    make_desk: MakeDesk, ct: Series
) -> None:
    desk = make_desk(Configuration.model_validate({"rule": [{"name": "all", "keep": "2d"}]}))
    desk.receive(*ct.files[:-1])
    desk.after(3)
    desk.receive(ct.files[-1])
    desk.after(61)
    desk.service.jobs["job-2"] = "failed"
    desk.after(60)
    desk.clock.now += 2 * 86_400 + 1
    desk.delivering.forget(86_400, 86_400)
    assert [post.state for post in desk.store.posts()] == ["superseded", "failed"]
    desk.delivering.tidy()
    assert desk.service.purged == ["job-1", "job-2"]
    desk.delivering.forget(86_400, 86_400)
    assert desk.store.posts() == []


def gone_home(desk: Desk) -> Desk:
    """Its results were delivered two days ago, and its images are gone."""
    desk.delivering.step("out")
    desk.delivering.tell()
    desk.clock.now += 2 * 86_400
    desk.delivering.forget(86_400, YEAR_S)
    assert desk.store.paths() == set()
    return desk


def approved(rtstruct: bytes, comment: str, folder: Path) -> Path:
    """What a person made of a result: another RTSTRUCT, of which each comment is a version."""
    dataset = pydicom.dcmread(BytesIO(rtstruct))
    dataset.ApprovalStatus, dataset.StructureSetDescription = "APPROVED", comment
    dataset.SOPInstanceUID += ".1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(folder / f"{comment}.dcm")
    return folder / f"{comment}.dcm"


def test_a_place_that_the_configuration_lost_is_named_as_such(done: DoneDesk, make_desk: MakeDesk) -> None:
    desk = done()
    desk.store.close()
    again = make_desk(Configuration(), clock=desk.clock, service=desk.service)
    again.delivering.step("out")
    assert again.store.deliveries()[0].note == "it is not in the configuration any more"
