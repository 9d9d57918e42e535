"""Which lines of a module a test runs, and how long."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Reach:
    """The lines and CPU seconds of a test, its fixtures too.

    Without those of the fixtures that it shares with other tests.
    """

    lines: frozenset[int]
    seconds: float


class Recorder:
    """Records the numbers of the lines that are run of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines: set[int] = set()
        self.shared_s = 0.0
        self.of_fixtures: dict[str, set[int]] = defaultdict(set)
        self.shared: set[str] = set()

    @contextmanager
    def recording(self) -> Iterator[set[int]]:
        """The lines that are run in the block.

        Those of blocks inside it are its own too.
        """
        outer, self._lines = self._lines, set()
        traced = sys.gettrace()
        sys.settrace(self._entered)
        try:
            yield self._lines
        finally:
            sys.settrace(traced)
            outer |= self._lines
            self._lines = outer

    @contextmanager
    def recording_fixture(self, name: str, *, shared: bool) -> Iterator[None]:
        """What is run belongs to every test that uses this fixture."""
        begun = time.process_time()
        with self.recording() as lines:
            yield
        self.of_fixtures[name] |= lines
        if shared:
            self.shared.add(name)
            self.shared_s += time.process_time() - begun

    @contextmanager
    def recording_test(self, fixtures: Iterable[str]) -> Iterator[list[Reach]]:
        """The reach of the test in the block, once the block ends."""
        reaches: list[Reach] = []
        begun = time.process_time() - self.shared_s
        with self.recording() as lines:
            yield reaches
        seconds = time.process_time() - self.shared_s - begun
        reaches.append(Reach(frozenset(lines.union(*(self.of_fixtures[name] for name in fixtures))), seconds))

    def _entered(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        return self._line if frame.f_code.co_filename == self._file else None

    def _line(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        self._lines.add(frame.f_lineno)
        return self._line
