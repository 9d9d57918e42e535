"""Shadow runs as a service sees them: offered where nothing else is to be done, and visible as scores alone."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from oarlock.facts import ModelFacts
from oarlock.scopes import Scope
from oarlock.settings import Settings
from oarlock.store.jobs import JobId
from oarlock.store.keys import OF_ALL_SITES, KeyStore
from oarlock.store.scores.write import Origin, ShadowScored
from service.background.sweeper import Sweeper
from service.broker import Broker
from tests.fixtures.scores import compared, score
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

SECOND = ModelFacts("second", "1.2.3", "5e" * 32)


@pytest.fixture(scope="module")
def shadowing(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    """A service at whose site north a second model draws too."""
    folder = tmp_path_factory.mktemp("shadowing")
    write_model(folder / "models")
    write_model(folder / "models", "second", SECOND.sha256)
    with serve(make_settings(folder, redis_url, lease_s=3600, shadow={"north": "second"})) as running:
        yield running


def client_of(running: Running, site: str) -> httpx.Client:
    scopes = sorted(set(Scope) - OF_ALL_SITES) if site else [Scope.ADMIN]
    token = KeyStore(running.service.database).create(uuid4().hex, scopes, site=site)[1]
    return httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)


class Offers(Broker):
    """Notes what is offered; ``depth`` messages wait."""

    def __init__(self, depth: int = 0) -> None:
        self.waiting, self.offered = depth, list[str]()

    def depth(self) -> int:
        return self.waiting

    def offer_shadow(self, job_id: JobId) -> None:
        self.offered.append(job_id)


def test_a_run_is_offered_to_idle_workers_alone_and_its_scores_are_those_of_its_model(
    shadowing: Running, series: list[Path]
) -> None:
    with client_of(shadowing, "north") as north, client_of(shadowing, "south") as south:
        marked = {model["name"]: model["shadow"] for model in north.get("/v1/models").json()["models"]}
        assert marked == {"oarlock-hn": False, "second": True}
        assert not any(model["shadow"] for model in south.get("/v1/models").json()["models"])
        job = north.post("/v1/jobs", files=parts(series[:5])).raise_for_status().json()
        shadowing.store.leases.succeed(shadowing.claim(job), shadow=SECOND)

        sweeper = Sweeper(shadowing.settings, shadowing.store, shadowing.service.storage, none := Offers())
        sweeper.offer_shadows()
        assert none.offered == []  # no worker
        shadowing.store.workers.heartbeat("one", {}, "cpu")
        for waiting, offered in ((1, []), (0, [job["id"]])):
            broker = Offers(waiting)
            Sweeper(shadowing.settings, shadowing.store, shadowing.service.storage, broker).offer_shadows()
            assert broker.offered == offered
        second = north.post("/v1/jobs", files=parts(series[:5])).raise_for_status().json()
        sweeper.offer_shadows()
        assert none.offered == []  # a job is queued
        shadowing.claim(second)
        sweeper.offer_shadows()
        assert none.offered == []  # the one worker is busy

        run = shadowing.store.shadows.claim(JobId(job["id"]), worker="one")
        assert run is not None
        scored = ShadowScored("CT", [(Origin.DELIVERED, compared(score("Brain", 0.97)), None)])
        shadowing.store.shadows.finish(run, scored)
        (row,) = north.get("/v1/qa/scores?shadow=true").json()["scores"]
        assert (row["model"], row["origin"], row["shadow"], row["surface_dsc"]) == ("second", "delivered", True, 0.97)
        assert north.get("/v1/qa/scores").json()["scores"] == []
        assert south.get("/v1/qa/scores?shadow=true").json()["scores"] == []
        (summed,) = north.get("/v1/qa/summary?shadow=true&origin=delivered").json()["oars"]
        assert summed["surface_dsc"]["mean"] == 0.97
        assert north.get("/v1/qa/summary?origin=delivered").json()["oars"] == []
        assert north.get(f"/v1/jobs/{job['id']}/references/delivered/1").status_code == 404
    with client_of(shadowing, "") as operator:
        metrics = operator.get("/metrics").text
    assert 'oarlock_shadow_runs{state="done"} 1.0' in metrics
    assert 'oarlock_shadow_surface_dsc_count{model="second"' in metrics
    assert 'oarlock_surface_dsc_count{model="second"' not in metrics


def test_a_model_that_comes_and_one_that_is_retired_are_seen_without_a_restart(shadowing: Running) -> None:
    models = shadowing.settings.models
    with client_of(shadowing, "") as operator:
        write_model(models, "third")
        (models / "default").write_text("third")
        (models / "second" / "retired").touch()
        found = {model["name"]: model["default"] for model in operator.get("/v1/models").json()["models"]}
        assert found == {"oarlock-hn": False, "third": True}
        warned = operator.get("/readyz").json()["warnings"]
    assert warned == ["the shadow model 'second' is not installed"]


@pytest.mark.parametrize(
    ("text", "of"),
    [
        ("", {"": None, "north": None}),
        ("new", {"": "new", "north": "new"}),
        ("new, north=other, south=", {"": "new", "north": "other", "south": None, "west": "new"}),
        ("north=other", {"": None, "north": "other", "south": None}),
    ],
)
def test_the_setting_names_a_model_for_all_sites_or_for_each(text: str, of: dict[str, str | None]) -> None:
    settings = Settings(shadow=text)
    assert {site: settings.shadow_of(site) for site in of} == of
