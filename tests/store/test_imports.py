"""What a process pays for: the job table needs no numerics, the settings no database, the charts no SciPy."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("oarlock.store.job_store", ("numpy", "scipy", "pydicom", "alembic")),
        ("oarlock.store.scores.write", ("numpy", "scipy")),
        ("oarlock.reporting.commissioning", ("scipy",)),  # half a second of each start of the service
        ("oarlock.settings", ("sqlalchemy", "alembic", "scipy", "pydicom")),
    ],
)
def test_a_module_loads_only_what_it_needs(module: str, unwanted: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not set(unwanted).intersection(loaded)
