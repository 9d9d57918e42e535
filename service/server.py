"""Server: how the application is served: with or without TLS, and whose word is taken for who a caller is."""

import ssl
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from oarlock.settings import Settings

GRACE_S: Final = 10


def configuration(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Uvicorn's settings for these of ours.

    ``X-Forwarded-For`` and ``X-Forwarded-Proto`` count where a stated proxy sends them; from anybody else they are what a caller
    would like to be.
    """
    return uvicorn.Config(
        app,
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
