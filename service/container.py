"""What the application holds from its start to its end."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from anyio import CapacityLimiter

from oarlock.errors import ManifestInvalid
from oarlock.rtstruct.profiles import Profile, check_default, read_profiles
from oarlock.segmentation.model_folder import Installed, ModelFolder
from oarlock.settings import Settings
from oarlock.sites import shares_of
from oarlock.store.callbacks import CallbackStore
from oarlock.store.database import Database
from oarlock.store.deliveries import DeliveryStore
from oarlock.store.files import Storage
from oarlock.store.gateways import GatewayStore
from oarlock.store.job_store import JobStore
from oarlock.store.keys import KeyStore
from oarlock.store.received import Received
from oarlock.store.reviews import ReviewStore
from oarlock.store.scores.read import ScoreStore
from service.access.auth import Doorkeeper
from service.access.oidc import OIDC
from service.access.sessions import Sessions
from service.background.followers import Followers
from service.background.webhooks.rules import Rules
from service.broker import Broker
from service.intake.places import Places
from service.intake.submission import Available, Intake
from service.intake.vault import Vault
from service.monitoring.health import Health
from service.monitoring.metrics import Metrics, Sources

log = logging.getLogger(__name__)

COMPARISONS: Final = 2
"""How many comparisons a service makes at the same time: each holds two words a voxel of its series (docs/operations.md)."""


@dataclass(frozen=True)
class Service:
    """The settings and everything that was made from them."""

    settings: Settings
    model_folder: ModelFolder
    database: Database
    profiles: Mapping[str, Profile]
    store: JobStore
    qa_store: ScoreStore
    storage: Storage
    broker: Broker
    intake: Intake
    doorkeeper: Doorkeeper
    sessions: Sessions
    reviews: ReviewStore
    oidc: OIDC | None
    vault: Vault
    callback_rules: Rules
    callbacks: CallbackStore
    deliveries: DeliveryStore
    gateways: GatewayStore
    health: Health
    metrics: Metrics
    places: Places
    received: Received
    followers: Followers
    comparison_threads: CapacityLimiter

    @property
    def models(self) -> Installed:
        """The models that are installed now."""
        return self.model_folder.now()

    def available(self, profile: str | None) -> Available:
        """What a sender can choose from.

        :param profile: the default of their key; None for the server's.
        """
        settings, models = self.settings, self.models
        return Available(
            models.offered,
            models.default,
            self.profiles,
            profile or settings.profile,
            self.callback_rules,
            labels=settings.deidentify_key is None,
        )


@contextmanager
def running(settings: Settings, *, embedded: Callable[[], str | None] = lambda: None) -> Iterator[Service]:
    """Everything that the application needs.

    :param embedded: why the service's own worker does not run; None if it does, or if there is none.
    :raises ValueError: if a callback secret or the de-identification key is malformed.
    :raises ProfileInvalid: if a site profile is wrong, or the default one does not exist.
    :raises DefaultModelMissing: if there is no model of the name that the settings give.
    """
    model_folder = _model_folder(settings)
    profiles = read_profiles(settings.profiles)
    check_default(profiles, settings.profile)
    callback_rules, vault, oidc = Rules.of(settings), Vault(settings.deidentify_key), OIDC.of(settings)
    storage = Storage(settings.data)
    database = Database(settings.database)
    store, callbacks, qa_store = (
        JobStore(database, shares=shares_of(settings.rules)),
        CallbackStore(database),
        ScoreStore(database),
    )
    reviews = ReviewStore(database)
    deliveries, received, gateways = DeliveryStore(database), Received(settings.data), GatewayStore(database)
    broker = Broker(settings)
    health = Health(settings, store, storage, broker, model_folder.now, embedded=embedded)
    sources = Sources(
        database,
        store,
        qa_store,
        broker,
        health,
        model_folder.now,
        callbacks,
        deliveries,
        reviews,
        received,
        gateways,
        settings.rules,
    )
    try:
        yield Service(
            settings=settings,
            model_folder=model_folder,
            database=database,
            profiles=profiles,
            store=store,
            qa_store=qa_store,
            storage=storage,
            broker=broker,
            intake=Intake(store, storage, broker),
            doorkeeper=Doorkeeper(settings, KeyStore(database), oidc),
            sessions=Sessions(database),
            oidc=oidc,
            vault=vault,
            callback_rules=callback_rules,
            callbacks=callbacks,
            deliveries=deliveries,
            gateways=gateways,
            health=health,
            metrics=Metrics(sources),
            reviews=reviews,
            places=Places(storage, settings),
            received=received,
            followers=Followers(store),
            comparison_threads=CapacityLimiter(COMPARISONS),
        )
    finally:
        broker.close()
        database.close()


def _model_folder(settings: Settings) -> ModelFolder:
    """The models, or none: a bad manifest stops no fetching of earlier results, and /readyz names it.

    :raises DefaultModelMissing: if all are good and the default is not among them.
    """
    folder = ModelFolder(settings.models, settings.model)
    try:
        folder.check()
    except ManifestInvalid as error:
        log.exception("no model can be offered", extra={"reason": error.detail})
    return folder
