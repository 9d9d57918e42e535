"""The log of the embedded worker: it is kept small while the worker writes to it."""

from pathlib import Path

from service.embedded.log_file import OLDER, log_file, rotate


def test_a_log_that_grew_too_large_is_emptied_and_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "worker.log"
    with log_file(path) as writer:
        for number in range(OLDER + 3):
            writer.write(f"{number}".encode() * 100)
            writer.flush()
            assert rotate(path, largest_bytes=50)
        writer.write(b"newest")
        writer.flush()
        assert not rotate(path, largest_bytes=50)
    older = {file.name: file.read_text()[0] for file in path.parent.iterdir() if file != path}
    newest = OLDER + 2
    assert older == {f"worker.log.{place}": f"{newest + 1 - place}" for place in range(1, OLDER + 1)}
    assert path.read_text() == "newest"


def test_a_log_that_is_not_there_yet_is_none_to_empty(tmp_path: Path) -> None:
    assert not rotate(tmp_path / "worker.log")
