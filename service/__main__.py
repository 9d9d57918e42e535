"""``python -m service``: the HTTP service.

With a private Redis and a worker of its own unless the settings name others.
"""

import os
import resource
import signal
import socket
import sys
from contextlib import closing, suppress
from typing import Final

from oarlock.errors import ManifestInvalid, OarlockError
from oarlock.rtstruct.profiles import check_default, read_profiles
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.settings import Settings, SettingsInvalid, read_settings
from oarlock.store.database import Database
from oarlock.store.files import PRIVATE_UMASK, make_private
from oarlock.store.keys import KeyStore
from oarlock.store.migrations import DatabaseNewer, WorkersLive
from service.access.hosts import is_loopback
from service.app import create_app
from service.embedded.redis_server import RedisServerNotFound
from service.embedded.supervisor import DataFolderInUse, companions
from service.server import Server, configuration, scheme


class NotPrivate(RuntimeError):
    """The service would speak plain HTTP to a network."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} can be reached from other machines, and keys and patients would cross the network in plain text. Set "
            "OARLOCK_TLS_CERTIFICATE and OARLOCK_TLS_KEY, or name the TLS proxy in front of it with OARLOCK_TRUSTED_PROXIES. "
            "Where nobody else can reach that network (inside a container), set OARLOCK_PLAIN_HTTP=true"
        )


class KeyMissing(RuntimeError):
    """The service would be open to a network."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} can be reached from other machines, and there is no valid key. Make one first, for the same database: "
            "oarlock keys create NAME --scope admin"
        )


REASONS: Final = (SettingsInvalid, NotPrivate, KeyMissing, DatabaseNewer, WorkersLive, DataFolderInUse, RedisServerNotFound)
"""What keeps the service from starting and is said in a sentence."""


def main() -> int:
    """Serve until a signal asks to stop; 0 after an orderly end."""
    os.umask(PRIVATE_UMASK)  # before the first file: what is written belongs to this user alone
    _raise_open_files()
    signal.signal(signal.SIGTERM, _interrupt)  # until uvicorn takes over, so that a stop during the start is orderly too
    try:
        settings = read_settings()
        settings.check_sites()  # a bad file is reported now, not with the first comparison
        check_private(settings)
        check_default(read_profiles(settings.profiles), settings.profile)
        check_model(settings)
        check_keys(settings)
        with companions(settings) as beside, _listen(settings) as listener:
            host, port = listener.getsockname()[:2]
            address = f"{scheme(settings)}://{host}:{port}"
            print(f"Oarlock listens on {address} (open it in a browser; every call is described at {address}/docs)", flush=True)
            app = create_app(beside.settings, worker_problem=beside.worker_problem)
            Server(app, configuration(app, settings)).run(sockets=[listener])
    except (*REASONS, OarlockError, OSError) as error:
        print(f"Oarlock cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def check_model(settings: Settings) -> None:
    """Check that the default model is there.

    One whose manifest is wrong stops no service, and /readyz names it.

    :raises DefaultModelMissing: if it is not.
    """
    with suppress(ManifestInvalid):
        ModelFolder(settings.models, settings.model).check()


def check_private(settings: Settings) -> None:
    """Check that nothing secret crosses a network in plain text.

    :raises NotPrivate: if the service is to listen beyond loopback without TLS and without a stated proxy.
    """
    if not (is_loopback(settings.host) or settings.tls_certificate or settings.trusted_proxies or settings.plain_http):
        raise NotPrivate(settings.host)


def check_keys(settings: Settings) -> None:
    """Check that strangers cannot call.

    The database is brought to the schema of this version first.

    :raises KeyMissing: if the service is to listen beyond loopback and nobody has a valid key.
    """
    make_private(settings.data)
    with closing(Database(settings.database)) as database:
        if not is_loopback(settings.host) and not KeyStore(database).any_valid():
            raise KeyMissing(settings.host)


def _listen(settings: Settings) -> socket.socket:
    """A socket bound to the address of the settings.

    :raises OSError: if it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        msg = f"{where} cannot be listened on ({error.strerror}); choose others with OARLOCK_HOST and OARLOCK_PORT"
        raise OSError(msg) from error
    listener.listen(2048)  # from now on a client waits instead of being turned away
    return listener


def _raise_open_files() -> None:
    """Allow as many open files as the system does: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
