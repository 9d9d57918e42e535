"""Tests of one mutant in a fork that loads Oarlock anew.

The libraries are there, and no file is changed.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tools.mutate.collected import OPTIONS
from tools.mutate.forks import NOTICED, PASSED, Trial
from tools.mutate.mutants import Mutant

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
    settings.register_profile(
        "mutants",
        settings.default,
        max_examples=25,  # what a quarter of the examples notices, all of them notice too
        database=None,
        derandomize=True,
        deadline=None,  # as in tests/conftest.py: a busy machine fails none
        suppress_health_check=[HealthCheck.too_slow],
    )


def loaded_anew(mutant: Mutant, tests: Sequence[str], limit_s: float) -> Trial:
    """A trial of the mutant by these tests, in this order."""

    def run() -> int:
        sys.meta_path.insert(0, _Swap(mutant.module.removesuffix(".py").replace("/", "."), mutant.source, mutant.module))
        settings.load_profile("mutants")
        return NOTICED if tests and pytest.main([*OPTIONS, "-x", *tests]) else PASSED

    return Trial(run, limit_s)
