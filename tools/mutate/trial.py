"""Tests of one mutant, in a fork of a process that has the libraries loaded; no file is changed."""

import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from hypothesis import settings

LIBRARIES: Final = (
    "numpy",
    "scipy.ndimage",
    "scipy.stats",
    "cv2",
    "pydicom",
    "orjson",
    "pydantic",
    "sqlalchemy",
    "hypothesis.extra.numpy",
)
OUTPUT: Final = Path(tempfile.gettempdir(), f"oarlock-mutants-{os.getpid()}.log")
"""What the tests of the latest mutant said."""

POLL_S: Final = 0.02


class _Swap(MetaPathFinder, Loader):
    """Gives one module another source."""

    def __init__(self, name: str, source: str, file: str) -> None:
        self._name, self._source, self._file = name, source, file

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, origin=self._file) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self._file
        exec(compile(self._source, self._file, "exec"), module.__dict__)  # noqa: S102 - a mutant is run, that is what it is for


def prepare() -> None:
    """Load what every mutant loads, but nothing of Oarlock's."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for library in LIBRARIES:
        importlib.import_module(library)
    settings.register_profile("mutants", settings.default, database=None, derandomize=True)
    settings.load_profile("mutants")


def passes(module: str, source: str, tests: Sequence[Path], *, limit_s: float) -> bool:
    """Whether all tests pass with this source in place of the module's; False too where they take longer than the limit."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(_run(module, source, tests))
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(POLL_S)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run(module: str, source: str, tests: Sequence[Path]) -> int:
    output = os.open(OUTPUT, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.meta_path.insert(0, _Swap(module.removesuffix(".py").replace("/", "."), source, module))
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not delivered"]
    try:
        return int(pytest.main([*options, *map(str, tests)]))
    except BaseException:  # whatever ends the tests has noticed the mutant
        return 1
