"""The inbox: what is whole stays, what is half goes, and nothing is taken that has no room or is not meant for us."""

import shutil
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

import gateway.inbox as inbox_module
from gateway.inbox import DiskLow, Taken
from gateway.instances import identify
from oarlock.dicom.unusable import Unusable
from oarlock.rtstruct.writer import write_rtstruct
from tests.fixtures.organs import AUTHORSHIP, Series
from tests.gateway.conftest import SENT, Desk, MakeDesk

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Stands for the end of the process at this very place."""


def files_of(desk: Desk) -> list[Path]:
    return [path for name in ("incoming", "series", "structure_sets") for path in (desk.data / name).rglob("*") if path.is_file()]


def test_a_file_is_kept_byte_for_byte(desk: Desk, ct: Series) -> None:
    assert desk.inbox.take(ct.files[0].read_bytes(), SENT, association=None) is Taken.NEW
    assert desk.inbox.take(ct.files[0].read_bytes(), SENT, association=None) is Taken.AGAIN
    (kept,) = files_of(desk)
    assert kept.read_bytes() == ct.files[0].read_bytes()
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("step", "kept"), [("_write_through", 1), ("_sync_folder", 2)])
def test_a_kill_leaves_whole_files_or_none(
    desk: Desk, make_desk: MakeDesk, ct: Series, monkeypatch: pytest.MonkeyPatch, step: str, kept: int
) -> None:
    """Before the file has its name nothing of it is left; after that it is in its series though its sender was told nothing."""
    desk.receive(ct.files[0])

    def killed(path: Path, *_: object) -> None:
        if step == "_write_through":
            path.write_bytes(ct.files[1].read_bytes()[:700])
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
        raise Killed

    monkeypatch.setattr(inbox_module, step, killed)
    with pytest.raises(Killed):
        desk.receive(ct.files[1])
    monkeypatch.undo()
    desk.store.close()
    again = make_desk(clock=desk.clock)
    again.inbox.sweep()
    (series,) = again.store.series()
    assert len(again.store.images(series.id)) == len(files_of(again)) == kept
    assert again.inbox.take(ct.files[1].read_bytes(), SENT, association=None) is (Taken.NEW if kept == 1 else Taken.AGAIN)


def test_nothing_is_taken_when_the_disk_is_low(desk: Desk, ct: Series) -> None:
    desk.inbox._min_free_bytes = shutil.disk_usage(desk.data).total
    with pytest.raises(DiskLow):
        desk.receive(ct.files[0])
    assert files_of(desk) == []


def test_what_is_not_taken_leaves_nothing_behind(desk: Desk, ct: Series, tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(ct.files[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "mr.dcm")
    for content in ((tmp_path / "mr.dcm").read_bytes(), b"not DICOM", ct.files[0].read_bytes()[:200]):
        with pytest.raises(Unusable):
            desk.inbox.take(content, SENT, association=None)
    assert files_of(desk) == []


def test_files_that_nothing_leads_to_are_deleted_once_they_are_old(desk: Desk, ct: Series) -> None:
    desk.receive(*ct.files)
    desk.store.forget(desk.store.series()[0])
    desk.inbox.tidy()
    assert len(files_of(desk)) == len(ct.files)  # one of them might be on its way into the table
    desk.clock.now = files_of(desk)[0].stat().st_mtime + 3_601
    desk.inbox.tidy()
    assert files_of(desk) == []


@pytest.mark.parametrize("again", [True, False])
def test_a_series_is_not_forgotten_for_what_came_since_it_was_looked_at(desk: Desk, ct: Series, *, again: bool) -> None:
    desk.receive(ct.files[0])
    desk.after(61)
    (seen,) = desk.store.series()
    desk.clock.now += 86_400
    desk.receive(ct.files[0 if again else 1])
    desk.store.let_go(seen)
    desk.store.forget(seen)
    assert len(desk.store.images(seen.id)) == (1 if again else 2)


def test_what_an_rtstruct_names_is_a_uid_or_is_left_out(ct: Series, tmp_path: Path) -> None:
    """A watched folder makes folders of these names."""
    import pydicom

    uids = ["../../../tmp/x", "1.2.3", "1" * 65, "/etc"]
    dataset = pydicom.dcmread(write(tmp_path / "rs.dcm", ct))
    (study,) = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    (first,) = study.RTReferencedSeriesSequence
    study.RTReferencedSeriesSequence = [first, *(pydicom.Dataset() for _ in uids)]
    with pydicom.config.disable_value_validation():
        for item, uid in zip(study.RTReferencedSeriesSequence[1:], uids, strict=True):
            item.SeriesInstanceUID = uid
        dataset.save_as(tmp_path / "rs.dcm")
    assert identify(tmp_path / "rs.dcm").names == {str(first.SeriesInstanceUID), "1.2.3"}


def write(path: Path, ct: Series) -> Path:
    write_rtstruct(path, ct.masks, ct.header, AUTHORSHIP)
    return path
