"""The tests of a module, collected once.

Each mutant runs the tests that reach its line, in a fork of that process.
"""

import ast
import gc
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import pytest
from hypothesis import settings

from tools.mutate.forks import NOTICED, PASSED, UNTRIED, Trial, outcomes
from tools.mutate.in_place import functions_of, put_in_place
from tools.mutate.mutants import Mutant
from tools.mutate.reach import Reach, Recorder

OPTIONS = (
    "-q",
    "-s",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-m",
    "not long and not slow and not delivered",
)
"""Of every run of tests; assertions are not explained, as nobody reads them."""

LEAST_S = 10.0
"""Processor time that even the shortest tests of a mutant may take."""


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test noticed.

    :param sure: False where that must be tried again in a process that loads the mutant from the start
    :param tests: those that reach it, the shortest first
    :param limit_s: processor time that they may take
    """

    mutant: Mutant
    sure: bool
    tests: Sequence[str]
    limit_s: float


class Collected:
    """A plugin of pytest that does ``work`` with the collected tests.

    In place of running them.
    """

    def __init__(self, root: Path, module: str, work: Callable[["Collected"], None]) -> None:
        self._name = module.removesuffix(".py").replace("/", ".")
        self._file = root / module
        self._original = self._file.read_text(encoding="utf-8")
        self._work = work
        self._recorder = Recorder(str(self._file))
        self._in_trial = False
        self._functions: list[FunctionType] = []
        self.items: list[pytest.Item] = []
        self.reaches: list[Reach] = []
        self.loading: set[int] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        settings.load_profile("mutants")  # after tests/conftest.py has loaded its own

    @pytest.hookimpl(wrapper=True)
    def pytest_load_initial_conftests(self) -> Iterator[None]:
        with self._loading():  # the fixtures' files may load the module before any test does
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        with self._loading():
            return (yield)

    @contextmanager
    def _loading(self) -> Iterator[None]:
        with self._recorder.recording() as lines:
            yield
        self.loading |= lines

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        if self._in_trial:
            return (yield)
        with self._recorder.recording_fixture(fixturedef.argname):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """A trial ends with its first failure, which nobody reads."""
        if self._in_trial and call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
            os._exit(NOTICED)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = session.items
        self._functions = functions_of(str(self._file))
        gc.freeze()  # what is never looked at again is never copied for a fork
        self.reaches = self._measured()
        self._work(self)
        return True

    def survivors(self, mutants: Sequence[Mutant], jobs: int) -> Iterator[Survivor]:
        """The mutants that no test noticed."""
        chosen = [self._tests_of(mutant) for mutant in mutants]
        trials = [self._trial(mutant, *tests) for mutant, tests in zip(mutants, chosen, strict=True)]
        for done, (number, outcome) in enumerate(outcomes(trials, jobs), start=1):
            if done % 50 == 0:
                print(f"  {done} of {len(trials)}", flush=True)
            if outcome != NOTICED:
                tests = [self.items[test].nodeid for test in chosen[number][0]]
                yield Survivor(mutants[number], outcome == PASSED, tests, trials[number].limit_s)

    def _tests_of(self, mutant: Mutant) -> tuple[list[int], bool]:
        """The numbers of the tests that may notice the mutant, and whether they are sure to meet it as it is put in place.

        A table of the module can be looked at without running a line of it.
        """
        lines, in_function = lines_of_statement(self._original, mutant.line)
        reach = [number for number, reach in enumerate(self.reaches) if not in_function or not reach.lines.isdisjoint(lines)]
        return sorted(reach, key=lambda number: self.reaches[number].seconds), in_function and self.loading.isdisjoint(lines)

    def _trial(self, mutant: Mutant, tests: list[int], sure: bool) -> Trial:
        def run() -> int:
            if not put_in_place(sys.modules[self._name], self._functions, self._original, mutant.source):
                return UNTRIED
            self._run([self.items[test] for test in tests])
            return PASSED if sure else UNTRIED

        return Trial(run, LEAST_S + 5 * sum(self.reaches[test].seconds for test in tests))

    def _run(self, items: Sequence[pytest.Item]) -> None:
        self._in_trial = True
        for item, following in zip(items, [*items[1:], *items[-1:]], strict=True):  # what the last one used is left as it is
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

    def _measured(self) -> list[Reach]:
        """The reach of each test, measured in a fork, so that nothing is left behind by it."""
        with tempfile.NamedTemporaryFile() as file:

            def measure() -> int:
                reaches = []
                for item, following in zip(self.items, [*self.items[1:], None], strict=True):
                    with self._recorder.recording_test(getattr(item, "fixturenames", ())) as reach:
                        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    reaches += reach
                failed = self.items[0].session.testsfailed
                Path(file.name).write_bytes(pickle.dumps((failed, reaches)))
                return PASSED

            list(outcomes([Trial(measure, 3600)], 1))
            failed, reaches = pickle.loads(Path(file.name).read_bytes())  # noqa: S301 - it was written by our own fork
        if failed:
            sys.exit(f"{failed} tests of {self._name} fail without any change")
        return list(reaches)


def lines_of_statement(source: str, line: int) -> tuple[range, bool]:
    """The lines of the innermost statement around this line.

    And whether it is inside of a function.
    """
    statement, in_function = range(line, line + 1), False
    for node in ast.walk(ast.parse(source)):  # outer ones first
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            first = node.body[0].lineno if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
            in_function |= first is not None and line >= first
            statement = range(node.lineno, (node.end_lineno or line) + 1)
    return statement, in_function


def collect(root: Path, module: str, tests: Sequence[Path], work: Callable[[Collected], None]) -> None:
    """Collect these files of tests, and do the work with them.

    In this process.
    """
    pytest.main([*OPTIONS, *map(str, tests)], plugins=[Collected(root, module, work)])
