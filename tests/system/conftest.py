from collections.abc import Iterator

import pytest

from oarlock.ct.writer import write_ct_series
from tests.fixtures.crooked import crooked_grid
from tests.service.running import zipped
from tests.system.department import Department
from tests.worker.conftest import head


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small crooked CT series as a zip archive."""
    folder = tmp_path_factory.mktemp("series")
    return zipped(write_ct_series(folder, head(crooked_grid()), crooked_grid(), patient_name="Canary^Yellow"))


@pytest.fixture(scope="package")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    """One for the tests of this folder: starting it takes the longest, and while it idles it takes a hundredth of a core."""
    made = Department(tmp_path_factory.mktemp("department"))
    yield made
    made.close()


@pytest.fixture
def department(standing: Department) -> Department:
    """A department that runs, whatever the test before did to it."""
    standing.start()
    return standing
