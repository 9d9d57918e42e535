"""A service with finished jobs whose contours were planted instead of drawn: the phantom's own, moved and worn a little."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from scipy import ndimage

from oarlock.ct.series import CTSeries, check_headers
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import Phantom, write_phantom
from oarlock.pipeline.contouring import Walk
from oarlock.rtstruct.writer import write_rtstruct
from oarlock.segmentation.manifest import read_manifests
from oarlock.segmentation.segment import Model
from oarlock.settings import Settings
from oarlock.store.jobs import JobId
from oarlock.store.scores.write import Scored
from tests.fixtures.organs import AUTHORSHIP
from tests.service.running import Running, parts, serve, write_model

SHIFTED = "Parotid_L"
"""The organ that was planted three slices, 13.5 mm, further down."""

EDITED = "Parotid_R"
"""The organ that somebody moved by two slices before they returned the contours."""


@dataclass(frozen=True)
class Planted:
    """A running service and the id of its finished job; ``others`` are ids of jobs in each other state."""

    running: Running
    job: str
    others: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def page(self) -> str:
        return f"{self.url}/jobs/{self.job}"


class PlantedWalk(Walk):
    """A walk on which no network is asked."""

    masks: OARMasks

    def _segment(self, series: CTSeries, model: Model, admit: Callable[[], None], spare: Callable[[], Any]) -> OARMasks:
        admit()
        return self.masks


def worn(phantom: Phantom) -> OARMasks:
    """The phantom's organs, each a little rounder; one is moved by three slices, one is missing."""
    masks = OARMasks.empty(phantom.masks.oars, phantom.grid.shape)
    for oar in phantom.masks.oars:
        crop = phantom.masks.crop(oar, margin=2)
        if crop is None or oar.name == "Cochlea_L":
            continue
        box, mask = crop
        if oar.name == SHIFTED:
            box = (slice(box[0].start - 3, box[0].stop - 3), *box[1:])
        masks.put_inside(oar, box, ndimage.median_filter(mask, 3) if mask.sum() > 200 else mask)
    return masks


def corrected(phantom: Phantom) -> OARMasks:
    """What came back: the contours of the job, with one organ moved by two slices."""
    masks = worn(phantom)
    oar = BY_NAME[EDITED]
    crop = masks.crop(oar)
    assert crop is not None
    masks.bits[:] &= ~masks.bit(oar)
    box, mask = crop
    masks.put_inside(oar, (slice(box[0].start + 2, box[0].stop + 2), *box[1:]), mask)
    return masks


@contextmanager
def planted_service(folder: Path, phantom: Phantom, **changes: object) -> Iterator[Planted]:
    """A service without a worker, with one finished job of the phantom."""
    from tests.service.conftest import make_settings

    write_model(folder / "models")
    with (
        planted_redis(folder) as redis_url,
        serve(make_settings(folder, redis_url, lease_s=3600, max_upload_files=1000, **changes)) as running,
    ):
        yield Planted(running, plant(running, folder / "series", phantom))


@contextmanager
def planted_redis(folder: Path) -> Iterator[str]:
    from service.embedded.redis_server import PrivateRedis

    (folder / "redis").mkdir()
    with PrivateRedis(folder / "redis").running() as url:
        yield url


def plant(running: Running, folder: Path, phantom: Phantom, *, key: str | None = None) -> str:
    """Post the phantom with its known contours, finish the job, and return corrected contours: its id."""
    images, reference = write_phantom(folder, phantom)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=running.url, headers=headers, timeout=60) as client:
        posted = client.post("/v1/jobs", files=parts([*images, reference])).raise_for_status().json()
    lease = running.claim(posted)
    settings: Settings = running.settings
    model = Model(read_manifests(settings.models)[settings.model], {}, "cpu")
    with running.service.storage.results_writer(lease.job_id, lease.token) as results:
        files = running.service.storage.input_files(JobId(posted["id"]))
        walk = PlantedWalk(files, results, posted["id"], datetime.now(UTC), lambda *_: None)
        walk.masks = worn(phantom)
        walk.run(lambda: model)
    judged = [(one.oar, one.level.value) for one in walk.verdicts]
    checks = [(check.code, check.oar or "", check.level.value) for check in walk.checks]
    scored = Scored(walk.scanner, [report.to_rows() for report in walk.reports], checks, judged)
    running.store.leases.succeed(lease, warnings=walk.warnings, scored=scored)
    running.service.storage.drop_input(JobId(posted["id"]))  # the pages work without the CT
    authorship = replace(AUTHORSHIP, job_id="returned")
    write_rtstruct(folder / "returned", corrected(phantom), check_headers(images), authorship)
    with httpx.Client(base_url=running.url, headers=headers, timeout=60) as client:
        content = {"content": (folder / "returned").read_bytes(), "headers": {"Content-Type": "application/dicom"}}
        client.post(f"/v1/jobs/{posted['id']}/reference", **content).raise_for_status()
    shutil.rmtree(folder)
    return str(posted["id"])
