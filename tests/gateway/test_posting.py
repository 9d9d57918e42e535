"""From files to jobs: complete, late, repeated, refused, interrupted. Seconds pass only where a test says so."""

from pathlib import Path

import pydicom
import pytest

from gateway.completeness import Because
from gateway.configuration import Configuration, Rule
from gateway.errors import ServiceRefused
from gateway.rules import Sent
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series
from tests.gateway.conftest import Desk, MakeDesk

pytestmark = pytest.mark.slow


@pytest.fixture
def structure_set(ct: Series, tmp_path: Path) -> Path:
    path = tmp_path / "rtstruct.dcm"
    write_rtstruct(path, ct.masks, ct.header, AUTHORSHIP)
    return path


def approved(path: Path) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.ApprovalStatus = "APPROVED"
    dataset.SOPInstanceUID += ".1"
    copy = path.with_name("approved.dcm")
    dataset.save_as(copy)
    return copy


def changed(path: Path, folder: Path) -> Path:
    """The same image with another byte in it."""
    dataset = pydicom.dcmread(path)
    dataset.PatientComments = "changed"
    copy = folder / "changed.dcm"
    dataset.save_as(copy)
    return copy


def states(desk: Desk) -> list[str]:
    return [post.state for post in desk.store.posts()]


# ── complete ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_stack_of_a_released_association_is_posted_after_the_settled_time_and_not_before(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files)
    desk.after(1.9)
    assert desk.service.posts == []
    desk.after(0.2)
    ((files, fields, _),) = desk.service.posts
    assert (len(files), fields) == (len(ct.files), {"priority": "normal"})


@pytest.mark.parametrize("case", ["gap", "aborted", "several associations"])
def test_what_does_not_show_that_it_is_whole_waits_for_quiet(desk: Desk, ct: Series, case: str) -> None:
    if case == "gap":
        desk.receive(*ct.files[:4], *ct.files[5:])
    elif case == "aborted":
        desk.receive(*ct.files, released=False)
    else:
        desk.receive(*ct.files[:5])
        desk.receive(*ct.files[5:])
    desk.after(59)
    assert desk.service.posts == []
    desk.after(2)
    assert len(desk.service.posts) == 1


def test_a_slice_that_comes_in_time_starts_the_quiet_time_anew(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files[:5])
    desk.receive(ct.files[5])
    desk.after(50)
    desk.receive(*ct.files[6:])
    desk.after(50)
    assert desk.service.posts == []
    desk.after(11)
    assert len(desk.service.posts[0][0]) == len(ct.files)


def test_images_that_an_rtstruct_lists_are_waited_for(desk: Desk, ct: Series, structure_set: Path) -> None:
    desk.receive(*ct.files[:-1], structure_set)
    desk.after(10)
    assert desk.service.posts == []
    desk.receive(ct.files[-1])
    desk.after(2.1)
    ((files, _, _),) = desk.service.posts
    assert len(files) == len(ct.files) + 1


def test_an_announced_number_is_waited_for(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files[:-1])
    desk.store.announce(ct.header.series_instance_uid, len(ct.files), desk.clock())
    desk.after(10)
    assert desk.service.posts == []
    desk.receive(ct.files[-1])
    desk.after(2.1)
    assert len(desk.service.posts) == 1


def test_a_person_can_say_that_a_series_is_whole(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files[:5], released=False)
    assert desk.store.force(ct.header.series_instance_uid) == 1
    desk.after(0)
    assert len(desk.service.posts) == 1
    assert desk.store.force(ct.header.series_instance_uid) == 0


# ── late ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_bytes_again_are_ignored(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files)
    desk.after(3)
    desk.receive(*ct.files)
    desk.after(100)
    assert len(desk.service.posts) == 1


def test_a_late_slice_makes_a_new_job_of_the_whole_stack_and_the_queued_one_is_cancelled(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files[:-1])
    desk.after(3)
    desk.receive(ct.files[-1])
    desk.after(61)
    assert [len(files) for files, _, _ in desk.service.posts] == [len(ct.files) - 1, len(ct.files)]
    assert desk.service.jobs == {"job-1": "cancelled", "job-2": "queued"}
    assert states(desk) == ["superseded", "posted"]


def test_a_late_slice_of_a_finished_job_supersedes_it_and_what_was_not_delivered_of_it_is_dropped(
    make_desk: MakeDesk, ct: Series
) -> None:
    desk = make_desk(
        Configuration.model_validate({"folder": [{"name": "out", "path": "/out"}], "rule": [{"name": "all", "send": ["out"]}]})
    )
    desk.receive(*ct.files[:-1])
    desk.after(3)
    desk.service.jobs["job-1"] = "succeeded"
    desk.after(3)
    assert [one.state for one in desk.store.deliveries()] == ["waiting"]
    desk.receive(ct.files[-1])
    desk.after(61)
    assert states(desk) == ["superseded", "posted"]
    assert desk.service.jobs["job-1"] == "succeeded"
    assert [one.state for one in desk.store.deliveries()] == ["dropped"]


def test_a_slice_that_comes_while_a_post_is_made_is_not_forgotten(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files[:-1])
    (seen,) = desk.store.series()
    images = desk.store.images(seen.id)
    desk.receive(ct.files[-1])
    desk.posting._decide(seen, images, Because.QUIET)
    assert desk.store.posts() == []
    desk.after(61)
    assert [len(files) for files, _, _ in desk.service.posts] == [len(ct.files)]


def test_a_series_that_grew_is_taken_again_when_it_is_sent_after_it_was_forgotten(desk: Desk, ct: Series) -> None:
    """The service takes a post without "supersedes" for another one than that with it, and refuses a key that both have."""
    desk.receive(*ct.files[:-1])
    desk.after(3)
    desk.receive(ct.files[-1])
    desk.after(61)
    desk.store.forget(desk.store.series()[0])
    desk.receive(*ct.files)
    desk.after(3)
    assert states(desk) == ["posted"]


def test_a_series_that_grows_before_it_was_sent_is_sent_once(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files[:-1])
    desk.clock.now += 3
    desk.posting._look_at(desk.store.series()[0])
    desk.receive(ct.files[-1])
    desk.clock.now += 61
    desk.posting._look_at(desk.store.series()[0])
    desk.after(0)
    assert [len(files) for files, _, _ in desk.service.posts] == [len(ct.files)]
    assert states(desk) == ["superseded", "posted"]


def test_another_image_with_the_same_uid_takes_the_place_of_the_first(desk: Desk, ct: Series, tmp_path: Path) -> None:
    desk.receive(*ct.files)
    desk.after(3)
    desk.receive(changed(ct.files[0], tmp_path))
    desk.after(61)
    first, second = (set(files) for files, _, _ in desk.service.posts)
    assert (len(first - second), len(second - first), len(second)) == (1, 1, len(ct.files))


def test_the_same_series_sent_to_another_title_is_another_job(make_desk: MakeDesk, ct: Series) -> None:
    desk = make_desk(
        Configuration(titles=["OARLOCK", "OAR_B"], rule=[Rule(name="b", called=["OAR_B"], model="b"), Rule(name="a")])
    )
    desk.receive(*ct.files)
    desk.receive(*ct.files, sent=Sent("CT1", "OAR_B"))
    desk.after(3)
    assert [fields.get("model") for _, fields, _ in desk.service.posts] == [None, "b"]


# ── the service is away, refuses, or the gateway ends in between ──────────────────────────────────────────────────────


def test_nothing_is_lost_while_the_service_is_away_for_an_hour(desk: Desk, ct: Series) -> None:
    desk.service.away = True
    desk.receive(*ct.files)
    for _ in range(60):
        desk.after(60)
    desk.service.away = False
    desk.after(60)
    assert len(desk.service.posts) == 1
    assert states(desk) == ["posted"]


def test_an_answer_that_is_lost_makes_no_second_job(desk: Desk, make_desk: MakeDesk, ct: Series) -> None:
    desk.service.loses_answers = True
    desk.receive(*ct.files)
    desk.after(3)
    desk.service.loses_answers = False
    desk.store.close()
    again = make_desk(clock=desk.clock, service=desk.service)  # as after a kill: the same folder, a new process
    again.after(60)
    assert len(again.service.jobs) == 1
    assert states(again) == ["posted"]


def test_a_series_that_grew_while_an_answer_was_lost_supersedes_the_job_that_the_service_had_made(desk: Desk, ct: Series) -> None:
    desk.service.loses_answers = True
    desk.receive(*ct.files[:-1])
    desk.after(3)
    desk.receive(ct.files[-1])
    desk.after(61)
    desk.service.loses_answers = False
    for _ in range(4):
        desk.after(61)
    assert desk.service.jobs == {"job-1": "cancelled", "job-2": "queued"}
    assert [fields.get("supersedes") for _, fields, _ in desk.service.posts] == [None, "job-1"]


def test_a_refusal_is_kept_with_its_reason_and_a_later_slice_is_a_new_try(desk: Desk, ct: Series) -> None:
    desk.service.refuses = ServiceRefused(422, "series.missing_slices", "The series has a gap.")
    desk.receive(*ct.files[:4], *ct.files[5:])
    desk.after(61)
    assert [(post.state, post.note) for post in desk.store.posts()] == [
        ("refused", "series.missing_slices: The series has a gap.")
    ]
    desk.service.refuses = None
    desk.receive(ct.files[4])
    desk.after(61)
    assert states(desk) == ["refused", "posted"]


def test_a_refused_stack_does_not_take_the_job_that_runs_with_it(desk: Desk, ct: Series, tmp_path: Path) -> None:
    desk.receive(*ct.files)
    desk.after(3)
    desk.service.refuses = ServiceRefused(422, "series.mixed_patients", "The slices name different patients.")
    desk.receive(changed(ct.files[0], tmp_path))
    desk.after(61)
    assert desk.service.jobs == {"job-1": "queued"}
    assert states(desk) == ["posted", "refused"]


def test_a_series_whose_files_somebody_deleted_keeps_no_other_waiting(make_desk: MakeDesk, ct: Series) -> None:
    desk = make_desk(Configuration(titles=["OARLOCK", "OAR_B"]))
    desk.receive(*ct.files)
    desk.clock.now += 1
    desk.receive(*ct.files, sent=Sent("CT1", "OAR_B"))
    broken, whole = desk.store.series()
    for path in (desk.data / "series" / broken.id).iterdir():
        path.unlink()
    desk.after(61)
    desk.after(61)
    assert [post.series for post in desk.store.posts() if post.state == "posted"] == [whole.id]


# ── RTSTRUCTs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_rtstruct_that_came_before_its_series_goes_along_as_reference(desk: Desk, ct: Series, structure_set: Path) -> None:
    desk.receive(structure_set)
    desk.after(100)
    desk.receive(*ct.files)
    desk.after(3)
    assert [len(files) for files, _, _ in desk.service.posts] == [len(ct.files) + 1]


def test_an_rtstruct_joins_a_job_that_still_waits(desk: Desk, ct: Series, structure_set: Path) -> None:
    desk.receive(*ct.files)
    desk.after(3)
    desk.after(3)
    desk.receive(structure_set)
    desk.after(1)
    desk.after(3)
    assert [len(files) for files, _, _ in desk.service.posts] == [len(ct.files), len(ct.files) + 1]
    assert desk.service.jobs == {"job-1": "cancelled", "job-2": "queued"}


def test_an_approved_rtstruct_is_given_back_to_the_job_once_it_is_done(desk: Desk, ct: Series, structure_set: Path) -> None:
    desk.receive(*ct.files)
    desk.after(3)
    contours = approved(structure_set)
    desk.receive(contours)
    desk.after(3)
    assert desk.service.returned == []
    desk.service.jobs["job-1"] = "succeeded"
    desk.after(3)
    desk.after(3)
    assert desk.service.returned == [("job-1", contours.read_bytes())]


def test_an_unapproved_rtstruct_after_the_job_is_set_aside(desk: Desk, ct: Series, structure_set: Path) -> None:
    desk.receive(*ct.files)
    desk.after(3)
    desk.service.jobs["job-1"] = "succeeded"
    desk.after(3)
    desk.receive(structure_set)
    desk.after(3)
    assert (len(desk.service.posts), desk.service.returned) == (1, [])
    assert desk.store.loose_structure_sets() == {}


# ── left alone ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_series_that_a_rule_ignores_is_not_posted(make_desk: MakeDesk, ct: Series) -> None:
    desk = make_desk(Configuration(rule=[Rule(name="not from there", calling=["CT1"], ignore=True)]))
    desk.receive(*ct.files)
    desk.after(61)
    assert desk.service.posts == []
    assert [series.note for series in desk.store.series()] == ["the rule 'not from there' says so"]
