"""What judges a stranger's file in a process of its own: answers, errors, and what happens to one that takes too much."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from oarlock.confinement import lacking
from oarlock.errors import FrameOfReferenceMismatch, MissingSlices, StructureSetTooCostly
from oarlock.pipeline import apart
from oarlock.pipeline.apart import Failed, Limits, run_apart
from tests.fixtures.processes import eventually

pytestmark = pytest.mark.slow

PLENTY = Limits(memory_bytes=2**28, cpu_s=20)


def take(mebibytes: int) -> int:
    return int(np.ones(mebibytes * 2**17).sum())


def compute(seconds: float) -> str:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "done"


def refuse() -> None:
    raise FrameOfReferenceMismatch


def refuse_with_facts() -> None:
    raise MissingSlices(expected_mm=2.5, found_mm=5.0, at_slice=4)


def stumble(quoted: str) -> None:
    raise ValueError(quoted)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def environment() -> dict[str, str]:
    return dict(os.environ)


def write(path: Path) -> None:
    path.write_bytes(b"some bytes")


def read(path: Path) -> bytes:
    return path.read_bytes()


def connect() -> None:
    socket.socket()


def fork() -> None:
    os.fork()


def execute() -> None:
    os.execv("/bin/true", ["true"])


def signal_the_parent() -> None:
    os.kill(os.getppid(), 0)


def limit_the_parent() -> None:
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)


def in_a_thread() -> int:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(take, 1).result()


def test_a_call_is_answered_by_another_process() -> None:
    assert run_apart(PLENTY, take, 1) == 2**17
    assert run_apart(PLENTY, os.getpid) != os.getpid()


def test_calls_with_more_memory_or_time_than_they_may_have_are_refused_and_the_next_one_is_answered() -> None:
    assert run_apart(Limits(2**27, 20), take, 64) == 2**23
    with pytest.raises(StructureSetTooCostly):
        run_apart(Limits(2**26, 20), take, 128)
    assert run_apart(Limits(2**27, 2), compute, 0.5) == "done"
    with pytest.raises(StructureSetTooCostly):
        run_apart(Limits(2**27, 1), compute, 5.0)
    with pytest.raises(StructureSetTooCostly):
        run_apart(PLENTY, die)
    assert run_apart(PLENTY, take, 1) == 2**17


def test_an_error_comes_back_as_it_was_raised() -> None:
    with pytest.raises(FrameOfReferenceMismatch, match="another frame of reference"):
        run_apart(PLENTY, refuse)
    with pytest.raises(MissingSlices) as caught:
        run_apart(PLENTY, refuse_with_facts)
    assert caught.value.detail == MissingSlices(expected_mm=2.5, found_mm=5.0, at_slice=4).detail


def test_what_is_unforeseen_is_named_without_its_message() -> None:
    with pytest.raises(Failed, match=r"ValueError at .*test_apart.py:[0-9]+ stumble") as caught:
        run_apart(PLENTY, stumble, "Hans Müller")
    assert "Müller" not in str(caught.value)


def test_the_child_has_none_of_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OARLOCK_DEIDENTIFY_KEY", "secret")
    apart._SERVERS.close()  # one that waits was started before
    assert not [name for name in run_apart(PLENTY, environment) if "OARLOCK" in name or "REDIS" in name or "DATABASE" in name]


def test_the_child_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises((Failed, StructureSetTooCostly)):
        run_apart(PLENTY, write, tmp_path / "file")
    assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size == 0


@pytest.mark.skipif("Landlock" in lacking(), reason="this system has no Landlock")
def test_the_child_reads_the_files_that_it_is_given_and_no_others(tmp_path: Path) -> None:
    given, other = tmp_path / "given", tmp_path / "other"
    for path in (given, other):
        path.write_bytes(b"some bytes")
    limits = Limits(2**28, 20, (given,))
    assert run_apart(limits, read, given) == b"some bytes"
    for path in (other, Path("/etc/passwd"), Path(f"/proc/{os.getpid()}/environ")):
        with pytest.raises(Failed, match="PermissionError"):
            run_apart(limits, read, path)
    with pytest.raises(Failed, match="PermissionError"):
        run_apart(limits, write, given)


@pytest.mark.skipif("seccomp" in lacking(), reason="this system has no seccomp")
@pytest.mark.parametrize("forbidden", [connect, fork, execute, signal_the_parent, limit_the_parent], ids=lambda one: one.__name__)
def test_the_child_speaks_to_nobody_and_neither_makes_nor_touches_a_process(forbidden: Callable[[], None]) -> None:
    with pytest.raises(Failed, match=r"PermissionError at .* test_apart.py:\d+ " + forbidden.__name__):
        run_apart(PLENTY, forbidden)


def test_the_child_may_use_threads() -> None:
    """NumPy's libraries do."""
    assert run_apart(PLENTY, in_a_thread) == 2**17


def test_calls_share_the_process_that_was_started_for_the_first() -> None:
    """What a call then takes is in ``benchmarks.apart``."""
    run_apart(PLENTY, int)
    server = apart._SERVERS._idle[-1]
    run_apart(PLENTY, os.getpid)
    assert apart._SERVERS._idle[-1] is server
    assert server.poll() is None


def test_a_server_that_was_killed_while_it_waited_is_replaced() -> None:
    run_apart(PLENTY, int)
    apart._SERVERS._idle[-1].kill()
    assert run_apart(PLENTY, take, 1) == 2**17


def test_a_call_under_way_ends_at_once_when_the_process_stops_and_its_child_with_it() -> None:
    run_apart(PLENTY, int)
    server = apart._SERVERS._idle[-1]
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(run_apart, PLENTY, compute, 15.0)
        assert eventually(lambda: len(children_of(server.pid)) == 1, within_s=10)
        (child,) = children_of(server.pid)
        apart.end_all()
        with pytest.raises(StructureSetTooCostly):
            call.result(timeout=5)
    assert eventually(lambda: not is_alive(child), within_s=10)
    assert server.returncode == -signal.SIGKILL
    assert run_apart(PLENTY, take, 1) == 2**17
