from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from oarlock.ct.series import check_headers
from oarlock.ct.writer import write_ct_series
from oarlock.geometry.grid import Grid
from oarlock.segmentation.manifest import ModelManifest
from oarlock.segmentation.segment import Model
from oarlock.segmentation.slabs import Volume
from oarlock.store.database import Database
from oarlock.store.files import Storage
from oarlock.store.job_store import JobStore, NewJob
from oarlock.store.jobs import JobId
from tests.fixtures.clock import Clock
from tests.fixtures.migrated import write_migrated
from tests.fixtures.orientations import voxel_centres_mm
from tests.worker.tiny_model import sigmoid_of_means, write_tiny_model

CREATED = datetime(2026, 3, 4, 5, 6, 7, 890_123, tzinfo=UTC)


def head(grid: Grid) -> np.ndarray:
    """A body with a bone ball in it, towards the head, the front and the left."""
    centre = grid.to_points((np.array([grid.shape], dtype=np.float64) - 1) / 2)[0]
    distance = np.linalg.norm(voxel_centres_mm(grid) - centre, axis=-1)
    bone = np.linalg.norm(voxel_centres_mm(grid) - centre - np.array([6.0, -5.0, 9.0]), axis=-1)
    return np.select([bone < 7, distance < 22], [900, 60], -1000).astype(np.int16)


@pytest.fixture(scope="session")
def tiny_manifest(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@dataclass
class House:
    """A data folder with a job table, and a model that is a plain function."""

    data: Path
    manifest: ModelManifest
    clock: Clock = field(default_factory=lambda: Clock(CREATED))
    predict: Callable[[Volume], Volume] = lambda hu: sigmoid_of_means(hu).astype(np.float32)

    def __post_init__(self) -> None:
        self.storage = Storage(self.data)
        self.database = Database(f"sqlite:///{write_migrated(self.data / 'oarlock.sqlite')}")
        self.store = JobStore(self.database, clock=self.clock)

    def post(self, series: Path, *others: Path, job_id: str = "job-1", profile: str | None = None) -> JobId:
        """What the service does with an upload."""
        with self.storage.incoming() as incoming:
            for path in [*sorted(series.iterdir()), *others]:
                incoming.next_file().write_bytes(path.read_bytes())
            header = check_headers(incoming.files)
            self.storage.adopt(incoming, JobId(job_id))
        facts = self.model(None).facts
        new = NewJob(id=JobId(job_id), series=header.facts(), model=facts, profile=profile, content_sha256="0" * 64)
        self.store.create(new)
        return JobId(job_id)

    def model(self, _: object) -> Model:
        return Model(self.manifest, {part.name: self.predict for part in self.manifest.parts}, "cpu")


@pytest.fixture
def house(tmp_path: Path, tiny_manifest: ModelManifest) -> Iterator[House]:
    made = House(tmp_path / "data", tiny_manifest)
    yield made
    made.database.close()


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fixtures.crooked import crooked_grid

    folder = tmp_path_factory.mktemp("series")
    write_ct_series(folder, head(crooked_grid()), crooked_grid(), patient_name="Canary^Yellow")
    return folder
