"""The tests of a module, collected once.

Each mutant runs the tests that reach its line, in a fork of that process.
"""

import ast
import gc
import math
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.sharedctypes import RawArray
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

LIBRARIES = frozenset({"PIL", "cv2", "httpx", "hypothesis", "numpy", "pydicom", "scipy", "shapely"})
"""What tests import late."""

LEAST_S = 1.0
"""Processor time that even the shortest test of a mutant may take."""


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

    def __init__(self, root: Path, module: str, work: Callable[["Collected"], None], longest_s: float) -> None:
        self._name = module.removesuffix(".py").replace("/", ".")
        self._file = root / module
        self._original = self._file.read_text(encoding="utf-8")
        self._work = work
        self._longest_s = longest_s
        self._code = compile(self._original, str(self._file), "exec")
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
        with self._recorder.recording_fixture(fixturedef.argname, shared=fixturedef.scope != "function"):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """A trial ends with its first failure, which nobody reads."""
        if self._in_trial and call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
            self._noticed[self._running] += 1
            self._noticed_at[self._line] = 1 + self._running
            os._exit(NOTICED)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = session.items
        self._functions = functions_of(str(self._file))
        gc.freeze()  # what is never looked at again is never copied for a fork
        self.reaches = self._measured()
        self._set_up_shared()
        self._ran, self._noticed = RawArray("L", len(self.items)), RawArray("L", len(self.items))
        self._noticed_at = RawArray("L", self._original.count("\n") + 2)  # by line: 1 + the test that noticed its latest mutant
        gc.freeze()
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
        short = [number for number in reach if self.reaches[number].seconds <= self._longest_s]
        return sorted(short, key=lambda number: self.reaches[number].seconds), in_function and self.loading.isdisjoint(lines)

    def _trial(self, mutant: Mutant, tests: list[int], sure: bool) -> Trial:
        def run() -> int:
            if not put_in_place(sys.modules[self._name], self._functions, self._code, mutant.source):
                return UNTRIED
            self._run(tests, mutant.line)
            return PASSED if sure else UNTRIED

        return Trial(run, LEAST_S + sum(map(self._limit_s, tests)))

    def _limit_s(self, test: int) -> float:
        return LEAST_S + self._recorder.shared_s + 10 * self.reaches[test].seconds

    def _run(self, tests: Sequence[int], line: int) -> None:
        """Run tests, first the one that noticed the latest mutant of the line, then those that notice most for their time.

        Each counts what it noticed, in memory that the forks share.
        """
        self._in_trial, self._line = True, line
        self.items[0].config._tmp_path_factory._basetemp = None  # type: ignore[attr-defined]  # noqa: SLF001 - each fork its own
        tests = sorted(tests, key=self._cost_of_notice)
        for test, following in zip(tests, [*tests[1:], *tests[-1:]], strict=True):  # what the last one used is left as it is
            self._running = test
            self._ran[test] += 1
            signal.setitimer(signal.ITIMER_PROF, self._limit_s(test))  # ends the fork
            self._protocol(self.items[test], self.items[following])

    def _cost_of_notice(self, test: int) -> float:
        """How long a test runs for each mutant that it notices; nothing if it noticed the latest one of the line."""
        if self._noticed_at[self._line] == 1 + test:
            return 0
        return float(self.reaches[test].seconds * (self._ran[test] + 2) / (self._noticed[test] + 1))

    def _measured(self) -> list[Reach]:
        """The reach of each test, measured in a fork, so that nothing is left behind by it.

        What the tests import only there is then imported here, once for all mutants.
        """
        with tempfile.NamedTemporaryFile() as file:

            def measure() -> int:
                reaches = []
                for item, following in zip(self.items, [*self.items[1:], None], strict=True):
                    with self._recorder.recording_test(_fixtures_of(item)) as reach:
                        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    reaches += reach
                failed = self.items[0].session.testsfailed
                Path(file.name).write_bytes(pickle.dumps((failed, reaches, self._recorder, list(sys.modules))))
                return PASSED

            list(outcomes([Trial(measure, 3600)], 1))
            failed, reaches, self._recorder, imported = pickle.loads(Path(file.name).read_bytes())  # noqa: S301 - our fork wrote it
        if failed:
            sys.exit(f"{failed} tests of {self._name} fail without any change")
        for name in imported:
            if name.partition(".")[0] in LIBRARIES:
                import_module(name)
        return list(reaches)

    def _set_up_shared(self) -> None:
        """Set up what tests share, where that runs no line of the module: else each mutant would do so anew."""
        lines, ready = self._recorder.of_fixtures, set[str]()
        for item, beside in zip(self.items[:-1], self.items[1:], strict=True):
            shared = self._recorder.shared.intersection(_fixtures_of(item))
            if shared - ready and not any(lines[name] for name in _fixtures_of(item)):
                ready |= shared
                item.config.option.setuponly = True
                self._protocol(item, beside)
                item.config.option.setuponly = False

    def _protocol(self, item: pytest.Item, following: pytest.Item) -> None:
        item.session._setupstate.teardown_exact(item)  # noqa: SLF001 - what the tests of another file share
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def _fixtures_of(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


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


def collect(
    root: Path, module: str, tests: Sequence[Path], work: Callable[[Collected], None], longest_s: float = math.inf
) -> None:
    """Collect these files of tests, and do the work with them.

    In this process.

    :param longest_s: tests that take longer are left out
    """
    pytest.main([*OPTIONS, *map(str, tests)], plugins=[Collected(root, module, work, longest_s)])
