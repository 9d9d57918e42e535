"""How the application is served: TLS, stated proxies, limits of connections."""

import socket
import ssl
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from oarlock.settings import Settings
from service.connection import limited

GRACE_S: Final = 10


class Server(uvicorn.Server):
    """A server that ends event streams when it stops.

    They have no end of their own: it would wait for all of its grace, and then log each as a fault.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        service = getattr(self._app.state, "service", None)
        if service is not None:
            service.followers.close()
        await super().shutdown(sockets)


def configuration(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Uvicorn's configuration.

    ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed from a stated proxy alone: anybody can send them.
    """
    return uvicorn.Config(
        app,
        http=limited(settings.connections_per_address, settings.trusted_proxies),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        **_tls(settings),
    )


def _tls(settings: Settings) -> dict[str, Any]:
    if settings.tls_certificate is None:
        return {}
    files = {"ssl_certfile": settings.tls_certificate, "ssl_keyfile": settings.tls_key}
    if settings.tls_client_ca is None:
        return files
    return files | {"ssl_ca_certs": str(settings.tls_client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}


def scheme(settings: Settings) -> str:
    """``https`` or ``http``."""
    return "http" if settings.tls_certificate is None else "https"
