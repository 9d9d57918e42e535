"""What the application holds while it runs: made once when it starts, closed when it ends."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from anyio import CapacityLimiter
from fastapi import Depends, Request

from oarlock.errors import ManifestInvalid
from oarlock.rtstruct.profiles import Profile, check_default, read_profiles
from oarlock.segmentation.manifest import ModelManifest, read_manifests
from oarlock.settings import Settings
from oarlock.store.callbacks import CallbackStore
from oarlock.store.database import Database
from oarlock.store.files import Storage
from oarlock.store.job_store import JobStore
from oarlock.store.keys import KeyStore
from oarlock.store.scores.read import ScoreStore
from service.access.auth import Doorkeeper
from service.access.oidc import OIDC
from service.api import comparisons as comparing
from service.background.webhooks import Rules
from service.broker import Broker
from service.intake.submission import Desk
from service.intake.vault import Vault
from service.monitoring.health import Health
from service.monitoring.metrics import Metrics

log = logging.getLogger(__name__)

UPLOADS: Final = 64
"""How many uploads may be under way at once; each may hold a batch or two in memory, and one too many is answered 503."""

UPLOAD_THREADS: Final = 8
"""How many uploads may work on the disk at once; others wait with their bytes still at the sender."""


@dataclass(frozen=True)
class Service:
    """The settings and everything that was made from them."""

    settings: Settings
    manifests: Mapping[str, ModelManifest]
    database: Database
    profiles: Mapping[str, Profile]
    store: JobStore
    qa_store: ScoreStore
    storage: Storage
    broker: Broker
    desk: Desk
    doorkeeper: Doorkeeper
    vault: Vault
    callback_rules: Rules
    callbacks: CallbackStore
    health: Health
    metrics: Metrics
    uploads: CapacityLimiter
    upload_threads: CapacityLimiter
    comparison_threads: CapacityLimiter


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """Everything that the application needs.

    :raises ValueError: a secret of callbacks, or the key of de-identification, is none.
    :raises ProfileInvalid: a site profile is wrong, or there is none of the name of the default one.
    """
    profiles = read_profiles(settings.profiles)
    check_default(profiles, settings.profile)
    callback_rules, vault = Rules.of(settings), Vault(settings.deidentify_key)
    storage = Storage(settings.data)
    database = Database(settings.database)
    store = JobStore(database)
    callbacks = CallbackStore(database)
    qa_store = ScoreStore(database)
    broker = Broker(settings)
    manifests = _manifests(settings)
    health = Health(settings, store, storage, broker, manifests)
    try:
        yield Service(
            settings=settings,
            manifests=manifests,
            database=database,
            profiles=profiles,
            store=store,
            qa_store=qa_store,
            storage=storage,
            broker=broker,
            desk=Desk(store, storage, broker),
            doorkeeper=Doorkeeper(settings, KeyStore(database), OIDC.of(settings)),
            vault=vault,
            callback_rules=callback_rules,
            callbacks=callbacks,
            health=health,
            metrics=Metrics(store, qa_store, broker, health, manifests, outbox=callbacks),
            uploads=CapacityLimiter(UPLOADS),
            upload_threads=CapacityLimiter(UPLOAD_THREADS),
            comparison_threads=CapacityLimiter(comparing.AT_ONCE),
        )
    finally:
        broker.close()
        database.close()


def _manifests(settings: Settings) -> Mapping[str, ModelManifest]:
    """The models. A wrong manifest does not stop the service: earlier results can still be fetched, and /readyz says the rest."""
    try:
        return read_manifests(settings.models)
    except ManifestInvalid as error:
        log.exception("no model can be offered", extra={"reason": error.detail})
        return {}


def _of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Here = Annotated[Service, Depends(_of)]
"""The service, as a parameter of a route."""
