"""Forks of a process: each runs one trial and ends.

How it ended says whether its tests passed.
"""

import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Final

OUTPUT: Final = Path(tempfile.gettempdir(), f"oarlock-mutants-{os.getpid()}.log")
"""What the tests of the latest trial said."""

PASSED: Final = 0
NOTICED: Final = 1
UNTRIED: Final = 2
"""The mutant could not be put in place."""

POLL_S: Final = 0.005
HANGS: Final = 20
"""How many times its limit of processor time a trial may take by the clock, before it is held to wait for ever."""


@dataclass(frozen=True)
class Trial:
    """What a fork does, and its limit of processor time.

    :param run: what it exits with: one of PASSED, NOTICED, UNTRIED
    """

    run: Callable[[], int]
    limit_s: float


def outcomes(trials: Sequence[Trial], jobs: int) -> Iterator[tuple[int, int]]:
    """Each trial's number and outcome, as they end.

    ``jobs`` run at a time; a trial over its limit is NOTICED.
    """
    waiting = iter(enumerate(trials))
    running: list[_Fork] = []
    while True:
        while len(running) < jobs and (following := next(waiting, None)):
            running.append(_Fork(*following))
        if not running:
            return
        for fork in [fork for fork in running if fork.ended()]:
            running.remove(fork)
            yield fork.number, fork.outcome
        time.sleep(POLL_S)


class _Fork:
    """One trial under way."""

    def __init__(self, number: int, trial: Trial) -> None:
        self.number = number
        self.outcome = NOTICED
        self._folder = tempfile.mkdtemp(prefix="oarlock-mutant-")
        self._until = time.monotonic() + HANGS * trial.limit_s
        self._process = os.fork()
        if self._process == 0:
            os._exit(_run(trial, self._folder))

    def ended(self) -> bool:
        done, status = os.waitpid(self._process, os.WNOHANG)
        if not done and time.monotonic() < self._until:
            return False
        if done and os.WIFEXITED(status):
            self.outcome = os.WEXITSTATUS(status)
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)  # whatever the tests started goes with them
        if not done:
            os.waitpid(self._process, 0)
        rmtree(self._folder, ignore_errors=True)
        return True


def _run(trial: Trial, folder: str) -> int:
    os.setsid()
    used_s = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used_s + int(trial.limit_s) + 1, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = folder
    output = os.open(OUTPUT, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        return trial.run()
    except BaseException:  # whatever ends the tests has noticed the mutant
        return NOTICED
