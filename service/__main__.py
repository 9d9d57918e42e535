"""``python -m service``: the HTTP service, with a private Redis and a worker of its own unless the settings name others."""

import ipaddress
import signal
import socket
import sys
from contextlib import closing

import uvicorn

from oarlock.database import Database
from oarlock.errors import OarlockError
from oarlock.migrations import DatabaseNewer
from oarlock.settings import Settings
from service.app import create_app
from service.embedded import DataFolderInUse, companions
from service.redis_server import RedisServerNotFound


def main() -> int:
    """Serve until a signal asks to stop; 0 after an orderly end."""
    settings = Settings()
    signal.signal(signal.SIGTERM, _interrupt)  # until uvicorn takes over, so that a stop during the start is orderly too
    try:
        _ = settings.site  # a bad file is said now, not with the first comparison
        with companions(settings) as reached, closing(Database(reached.database)), _listen(settings) as listener:
            host, port = listener.getsockname()[:2]
            print(f"Oarlock listens on http://{host}:{port} (documentation: /docs)", flush=True)
            config = uvicorn.Config(create_app(reached), log_config=None, access_log=False, timeout_graceful_shutdown=10)
            uvicorn.Server(config).run(sockets=[listener])
    except (DatabaseNewer, DataFolderInUse, RedisServerNotFound, OarlockError, OSError) as error:
        print(f"Oarlock cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _listen(settings: Settings) -> socket.socket:
    """A socket bound to the address of the settings.

    :raises OSError: if it cannot be bound, or if it is open to a network that the settings do not vouch for.
    """
    if not settings.trust_network and not _is_loopback(settings.host):
        msg = f"{settings.host} can be reached from other machines and the service has no keys; see OARLOCK_TRUST_NETWORK"
        raise OSError(msg)
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
