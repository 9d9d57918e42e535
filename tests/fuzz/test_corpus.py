"""What fuzzers found worth keeping: all of it is accepted or refused, in little memory and time, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from oarlock.errors import InputError, NotDicom
from tests.fuzz import corpus
from tests.fuzz.replay import failures
from tests.fuzz.targets import TARGETS, refusals

pytestmark = pytest.mark.slow

LARGEST_CORPUS_BYTES = 2_000_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory a process has")
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long("files"))])
def test_every_input_of_the_corpus_is_accepted_or_refused(every: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz.replay", "--every", str(every)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[:-1]) == (0, []), done.stdout + done.stderr


def test_a_target_that_fails_is_told_with_its_input() -> None:
    def fail(content: bytes) -> None:
        if content == b"bad":
            raise IndexError("list index out of range")

    assert list(failures(fail, [b"good", b"bad"])) == ["input 2 (3 bytes): IndexError('list index out of range')"]


def test_only_refusals_of_the_kind_that_a_target_allows_pass() -> None:
    with refusals(InputError):
        raise NotDicom(files=1)
    with pytest.raises(ValueError, match="no refusal"), refusals(InputError):
        raise ValueError("no refusal")


def test_every_target_has_a_corpus_and_all_of_them_are_small() -> None:
    assert {path.stem for path in corpus.FOLDER.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in corpus.FOLDER.iterdir()) < LARGEST_CORPUS_BYTES
    for name, target in TARGETS.items():
        assert max(map(len, corpus.read(name))) <= target.largest, name
