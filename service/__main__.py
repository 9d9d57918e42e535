"""``python -m service``: the HTTP service, with a private Redis and a worker of its own unless the settings name others."""

import signal
import socket
import sys
from contextlib import closing

import uvicorn

from oarlock.errors import OarlockError
from oarlock.rtstruct.profiles import check_default, read_profiles
from oarlock.settings import Settings
from oarlock.store.database import Database
from oarlock.store.keys import KeyStore
from oarlock.store.migrations import DatabaseNewer
from service.access.auth import is_loopback
from service.app import create_app
from service.embedded.redis_server import RedisServerNotFound
from service.embedded.supervisor import DataFolderInUse, companions
from service.server import configuration, scheme


class KeyMissing(RuntimeError):
    """The service would be open to a network."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} can be reached from other machines, and there is no valid key. Make one first, for the same database: "
            "oarlock keys create NAME --scope admin"
        )


def main() -> int:
    """Serve until a signal asks to stop; 0 after an orderly end."""
    settings = Settings()
    signal.signal(signal.SIGTERM, _interrupt)  # until uvicorn takes over, so that a stop during the start is orderly too
    try:
        _ = settings.site  # a bad file is said now, not with the first comparison
        check_default(read_profiles(settings.profiles), settings.profile)
        check_keys(settings)
        with companions(settings) as reached, _listen(settings) as listener:
            host, port = listener.getsockname()[:2]
            address = f"{scheme(settings)}://{host}:{port}"
            print(f"Oarlock listens on {address} (every call is described at {address}/docs)", flush=True)
            uvicorn.Server(configuration(create_app(reached), reached)).run(sockets=[listener])
    except (KeyMissing, DatabaseNewer, DataFolderInUse, RedisServerNotFound, OarlockError, OSError) as error:
        print(f"Oarlock cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def check_keys(settings: Settings) -> None:
    """Bring the database to the schema of this version, and see that strangers cannot walk in.

    :raises KeyMissing: if the service is to listen beyond loopback and nobody has a valid key.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
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


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
