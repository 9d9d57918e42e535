"""Fixtures that every test may ask for."""

import gc
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Garbage is looked for after 50,000 new objects, not after 700: what is imported stays, and to look through it again and again
# took a tenth of the tests' CPU.
gc.set_threshold(50_000)

# A fixture there that needs more than the core (the service, a server's programs, the expert data) imports it when it is asked
# for: so the core's tests are collected with the core's dependencies alone.
pytest_plugins = ("tests.fixtures.real_data", "tests.fixtures.scans", "tests.fixtures.stores")

LONGEST = (
    "worker/test_robustness.py",
    "qa/test_plausibility.py",
    "system/test_crashes.py",
    "web/",
    "service/test_references.py",
    "store/test_migrations.py",
    "system/test_privacy.py",
    "worker/test_pipeline.py",
    "service/test_dicomweb.py",
    "system/test_dependencies.py",
    "rtstruct/test_round_trip.py",
    "rtstruct/test_reader.py",
    "rtstruct/test_supplied_structure_sets.py",
    "system/test_clocks.py",
    "worker/test_real_series.py",
    "model_export/test_imports.py",
    "tools/test_map.py",
    "store/test_score_store.py",
    "store/test_job_store.py",
    "system/test_gateway.py",
    "pipeline/test_apart.py",
    "fuzz/",
    "ct/test_series_real.py",
    "qa/test_surface_dsc.py",
    "pictures/test_contact_sheet.py",
    "system/test_several_services.py",
    "inference/",
    "ct/test_pixels.py",
    "rtstruct/test_placing.py",
    "system/test_supervisor.py",
    "service/test_stow.py",
    "geometry/test_skin.py",
    "service/test_callbacks.py",
    "service/test_prometheus.py",
    "service/test_backup.py",
    "system/",
    "model_export/",
    "service/test_connections.py",
    "cli/test_main.py",
    "worker/",
    "service/",
    "dicom/test_decoding.py",
    "segmentation/",
    "ct/",
    "rtstruct/",
    "store/",
    "pictures/",
    "phantom/",
    "test_",
    "tools/",
    "qa/",
)
"""What takes longest, first: at the end no core is left alone with one of these files (they are shared out whole, in order).

Between two that mostly wait for processes (of system/, and callbacks) stand some that compute, so that the cores are never idle
together.
"""

TOGETHER = (("tests/system/test_crashes.py", "tests/system/test_uploads.py"), ("tests/web/",))
"""Files that one process runs, since they share what takes 10 s to begin: a department; a service with a past, and a browser."""

KINDS_OF_LONG = {
    "cohort": "the checks, the writer or the metric on many experts' contours; a case of the phantom is in `make test`",
    "files": "every file of a large collection; some of them are in `make test`",
    "matrix": "one more place at which a component fails; another place is in `make test`",
    "oracle": "a long comparison with an independent program; a shorter one is in `make test`",
    "pages": "one more page in a browser; the review page, signing in and purging are in `make test`",
    "shipped": "the shipped model on a whole scan; the phantom and a part of a scan are in `make test`",
    "simulation": "thousands of charts drawn at random; two of the cases are in `make test`",
    "soak": "a whole service for a minute or more; single failures are in `make test`",
    "training": "networks that are trained for the test; a shorter training is in `make test`",
}
"""What the mark ``long`` may name; `make test-all` alone runs what carries it."""


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis does not time examples, which on a busy machine says nothing.

    It tries 100 of them in `make test-all`, 50 in `make test`, 20 in `make test-fast`.
    """
    left_out = [mark for mark in ("not long", "not slow") if mark in config.option.markexpr]
    examples = (100, 50, 20)[len(left_out)]
    settings.register_profile("tier", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=examples)
    settings.load_profile("tier")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a file is left out as a whole, by a mark of its own.

    It is not imported then: half of the fast tests' time went into importing files without a fast test.
    """
    if not re.fullmatch(r"not \w+( and not \w+)*", config.option.markexpr):
        return None
    left_out = set(config.option.markexpr.removeprefix("not ").split(" and not "))
    if collection_path.suffix == ".py" and left_out & marks_of_file(collection_path.read_text(encoding="utf-8")):
        return True
    return None


def marks_of_file(source: str) -> set[str]:
    """The marks that a file gives to each of its tests, by the statement that begins with ``pytestmark =``."""
    statement = re.search(r"^pytestmark = (.+\n(?:[ \])].*\n)*)", source, re.MULTILINE)
    return set(re.findall(r"pytest\.mark\.(\w+)", statement[1])) if statement else set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, else the order stays; a long test must be of a known kind.

    :raises pytest.UsageError: if one is not.
    """
    for item in items:
        for mark in item.iter_markers("long"):
            if mark.args not in {(kind,) for kind in KINDS_OF_LONG}:
                raise pytest.UsageError(f"{item.nodeid} is long, and {mark.args} is not a kind of it (KINDS_OF_LONG)")
    folder = Path(__file__).parent
    items.sort(key=lambda item: _place(item.path.relative_to(folder).as_posix()))


def _place(file: str) -> int:
    return next((place for place, start in enumerate(LONGEST) if file.startswith(start)), len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """What shares out files whole, and some of them together."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # not there where the core's tests run alone

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share_of(nodeid)

    return Together(config, log)


def share_of(nodeid: str) -> str:
    """What of the tests one process runs whole: the test's file, or several together by the name of the first."""
    return next((files[0] for files in TOGETHER if nodeid.startswith(files)), nodeid.split("::", 1)[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: many tests wait for a process that they have started, but none of the fast ones."""
    return (os.cpu_count() or 1) + ("not slow" not in config.option.markexpr)


@pytest.fixture(scope="session", autouse=True)
def _one_list_of_authorities() -> Iterator[None]:
    """httpx reads the list of certificate authorities once; for each client anew it takes 40 ms of CPU."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("httpx"):
            transports = import_module("httpx._transports.default")
            patch.setattr(transports, "create_ssl_context", cache(transports.create_ssl_context))
        yield
