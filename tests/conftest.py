"""Fixtures that every test may ask for."""

import fcntl
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from oarlock.geometry.grid import Grid
from oarlock.phantom.patient import Phantom, head_and_neck
from oarlock.store.database import Database
from oarlock.store.job_store import JobStore
from tests.fixtures import crooked
from tests.fixtures.clock import Clock
from tests.fixtures.migrated import write_migrated

if TYPE_CHECKING:
    from tests.expert_data.planning_ct import PlanningCTs
    from tests.fixtures import postgresql
    from tools.derive_norms import ContourSet

# A fixture that needs more than the core (the service, a server's programs, the expert data) imports it when it is asked for:
# so the core's tests are collected with the core's dependencies alone.

# Hypothesis times each example by default; on a busy machine that says nothing of what is tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

LONGEST = (
    "worker/test_robustness.py",
    "qa/test_plausibility.py",
    "system/",
    "rtstruct/test_supplied_structure_sets.py",
    "worker/test_real_series.py",
    "model_export/test_imports.py",
    "fuzz/",
    "store/test_migrations.py",
    "service/test_backup.py",
    "ct/test_series_real.py",
    "qa/test_surface_dsc.py",
    "inference/",
    "cli/test_main.py",
    "web/",
    "model_export/",
    "worker/",
    "service/",
)
"""What takes longest, first: at the end no core is left alone with one of these files (they are shared out whole, in order)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; otherwise the order stays."""
    folder = Path(__file__).parent
    items.sort(key=lambda item: _place(item.path.relative_to(folder).as_posix()))


def _place(file: str) -> int:
    return next((place for place, start in enumerate(LONGEST) if file.startswith(start)), len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a process that they have started."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def _one_list_of_authorities() -> Iterator[None]:
    """httpx reads the list of certificate authorities once; for each client anew it takes 40 ms of CPU."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("httpx"):
            transports = import_module("httpx._transports.default")
            patch.setattr(transports, "create_ssl_context", cache(transports.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real series and expert contours that are too large, or not ours, to be in the repository."""
    folder = os.environ.get("OARLOCK_SHARED")
    if not folder:
        pytest.skip("OARLOCK_SHARED is not set: it names the folder with the real series and expert contours")
    if not Path(folder, "data").is_dir():
        pytest.skip("OARLOCK_SHARED has no folder 'data'")
    return Path(folder)


Unpacked = Callable[[str], Path]


@pytest.fixture(scope="session")
def unpacked(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    """Unpacks an archive, named relative to the shared folder, once per session, and gives the folder that it lies in."""
    base = of_all_processes(tmp_path_factory)

    def unpack(archive: str) -> Path:
        path, folder = shared / archive, base / f"unpacked-{archive.replace('/', '-')}"
        if not path.is_file():
            pytest.skip(f"OARLOCK_SHARED has no {archive}")
        with one_at_a_time(base / "unpacking"):
            if not folder.exists():
                unfinished = folder.with_suffix(".unfinished")
                with tarfile.open(path) as members:
                    members.extractall(unfinished, filter="data")
                unfinished.rename(folder)
        return folder

    return unpack


def of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder of this session: the same in each of the processes that the tests are shared out to."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Of the processes of this session, one at a time gets through the block."""
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def siemens_series(unpacked: Unpacked) -> Path:
    """Folder of a real head and neck planning CT: 186 slices of 512 × 512, 0.977 × 0.977 × 2 mm."""
    return unpacked("data/dicom/hn_siemens_onkodicom/files.tar.xz")


@pytest.fixture(scope="session")
def expert_contours(unpacked: Unpacked) -> Path:
    """Folder of the expert contours released with the paper, in their public layout (NRRD)."""
    return unpacked("data/contours/nrrds.tar.xz")


@pytest.fixture(scope="session")
def expert_sets(expert_contours: Path) -> "list[ContourSet]":
    """Every set of the expert contours: 21 scans, two raters. Unpacking them takes most of a minute, so it is done once."""
    from tools.derive_norms import read

    return list(read(expert_contours))


@pytest.fixture(scope="session")
def planning_cts(shared: Path) -> "PlanningCTs":
    """The CT of OpenKBP's patients, and under those of the expert contours that are drawn on one of them."""
    from tests.expert_data.planning_ct import PlanningCTs

    return PlanningCTs.read(shared / "data/openkbp", shared / "data/matched.csv")


@pytest.fixture
def crooked_grid() -> Grid:
    return crooked.crooked_grid()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    """The head and neck on its own grid, made once for all processes; not to be changed by a test."""
    base = of_all_processes(tmp_path_factory)
    file = base / "phantom.pickle"
    with one_at_a_time(base / "making the phantom"):
        if not file.exists():
            file.write_bytes(pickle.dumps(head_and_neck(), protocol=pickle.HIGHEST_PROTOCOL))
    made: Phantom = pickle.loads(file.read_bytes())
    made.hu.setflags(write=False)
    made.masks.bits.setflags(write=False)
    return made


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis of this session's own: tests empty its queue."""
    from service.embedded.redis_server import PrivateRedis

    with PrivateRedis(tmp_path_factory.mktemp("redis")).running() as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_server() -> "Iterator[postgresql.Server]":
    """A real PostgreSQL for this session."""
    from tests.fixtures import postgresql

    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")
    with postgresql.running(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of database; the fast tests ask SQLite alone."""
    return str(request.param)


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of each kind."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'oarlock.sqlite'}"
        return
    with request.getfixturevalue("postgresql_server").database() as url:
        yield url


@pytest.fixture
def migrated_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of each kind with the schema of today and no rows."""
    if database_kind == "sqlite":
        yield f"sqlite:///{write_migrated(tmp_path / 'oarlock.sqlite')}"
        return
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    with server.database(template=server.migrated) as url:
        yield url


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """An open database of each kind, with the schema of today."""
    opened = Database(migrated_url)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Database, clock: Clock) -> JobStore:
    """A job table on this clock, in a database of each kind."""
    return JobStore(database, clock=clock)
