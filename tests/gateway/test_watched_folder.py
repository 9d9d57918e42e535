"""A folder that people drop series into: any order, any speed, any file system."""

import errno
from pathlib import Path
from typing import Any

import pytest

from gateway.configuration import Configuration
from gateway.errors import ServiceRefused
from gateway.watched_folder import WatchedFolder, move
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series
from tests.gateway.conftest import Desk, MakeDesk

pytestmark = pytest.mark.slow


@pytest.fixture
def dropped(tmp_path: Path, make_desk: MakeDesk) -> tuple[Desk, WatchedFolder, Path]:
    folder = tmp_path / "drop"
    folder.mkdir()
    desk = make_desk(Configuration.model_validate({"watch": [{"name": "share", "path": str(folder), "looks": 2}]}))
    (watch,) = desk.posting._configuration.watch
    return desk, WatchedFolder(watch, desk.store, desk.inbox), folder


def drop(files: list[Path], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes())


def images(desk: Desk) -> int:
    return sum(len(desk.store.images(series.id)) for series in desk.store.series())


def test_a_series_is_taken_posted_and_its_result_lies_beside_it(
    dropped: tuple[Desk, WatchedFolder, Path], ct: Series, tmp_path: Path
) -> None:
    desk, watched, folder = dropped
    drop(list(reversed(ct.files)), folder / "MUELLER")
    watched.step()
    assert images(desk) == 0
    watched.step()
    assert images(desk) == len(ct.files)
    desk.after(61)
    write_rtstruct(tmp_path / "rs.dcm", ct.masks, ct.header, AUTHORSHIP)
    desk.service.results["rtstruct"] = (tmp_path / "rs.dcm").read_bytes()
    desk.service.jobs["job-1"] = "succeeded"
    desk.after(3)
    desk.delivering.step("share")
    found = {path.name for path in (folder / "done" / ct.header.series_instance_uid).iterdir()}
    results = [name for name in found if name.startswith("RS.")]
    assert (found - set(results), len(results)) == ({path.name for path in ct.files}, 1)
    assert list((folder / "MUELLER").iterdir()) == []


def test_a_file_that_grows_or_has_no_end_yet_is_left_alone(dropped: tuple[Desk, WatchedFolder, Path], ct: Series) -> None:
    desk, watched, folder = dropped
    content = ct.files[0].read_bytes()
    for size in (300, 900, len(content) // 2):
        (folder / "slow.dcm").write_bytes(content[:size])
        watched.step()
    for _ in range(10):
        watched.step()  # it has stopped growing in the middle of its pixels
    assert (images(desk), (folder / "slow.dcm").exists()) == (0, True)
    (folder / "slow.dcm").write_bytes(content)
    watched.step()
    watched.step()
    assert images(desk) == 1


def test_what_is_no_image_is_refused_with_its_reason_beside_it(dropped: tuple[Desk, WatchedFolder, Path]) -> None:
    _, watched, folder = dropped
    (folder / "letter.txt").write_bytes(b"Dear colleague")
    watched.step()
    watched.step()
    assert (folder / "refused" / "letter.txt").exists()
    assert (folder / "refused" / "letter.txt.reason.txt").read_text() == "it is not DICOM\n"


def test_a_file_that_cannot_be_read_keeps_no_other_waiting_and_is_refused_in_the_end(
    dropped: tuple[Desk, WatchedFolder, Path], ct: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, watched, folder = dropped
    monkeypatch.setattr("gateway.watched_folder._GIVE_UP_LOOKS", 4)
    drop(ct.files, folder)
    held, read = folder / ct.files[0].name, Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if self == held:
            raise PermissionError(errno.EACCES, "held")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    for _ in range(3):
        watched.step()
    assert (images(desk), held.exists()) == (len(ct.files) - 1, True)
    watched.step()
    reason = folder / "refused" / f"{held.name}.reason.txt"
    assert (held.exists(), reason.read_text()) == (False, "it cannot be taken (PermissionError)\n")


def test_a_share_that_is_away_for_a_look_loses_no_look(dropped: tuple[Desk, WatchedFolder, Path], ct: Series) -> None:
    desk, watched, folder = dropped
    drop(ct.files[:1], folder)
    watched.step()
    folder.rename(folder.with_name("away"))
    watched.step()
    folder.with_name("away").rename(folder)
    watched.step()
    assert images(desk) == 1


def test_a_series_that_the_service_refuses_is_moved_with_its_reason(
    dropped: tuple[Desk, WatchedFolder, Path], ct: Series
) -> None:
    desk, watched, folder = dropped
    desk.service.refuses = ServiceRefused(422, "series.missing_slices", "The series has a gap.")
    drop(ct.files[:4] + ct.files[5:], folder)
    watched.step()
    watched.step()
    desk.after(61)
    watched.step()
    refused = folder / "refused" / ct.header.series_instance_uid
    assert len(list(refused.glob("*.dcm"))) == len(ct.files) - 1
    assert (refused / "reason.txt").read_text() == "series.missing_slices: The series has a gap.\n"
    assert list((folder / "done").iterdir()) == []


def test_a_move_across_file_systems_copies_and_then_deletes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"content")
    rename = Path.rename

    def across(self: Path, target: Any) -> Path:
        if self == path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    assert move(path, tmp_path / "done" / "a.dcm").read_bytes() == b"content"
    assert not path.exists()
    path.write_bytes(b"another")
    assert move(path, tmp_path / "done" / "a.dcm") == tmp_path / "done" / "a~2.dcm"
