"""Settings of the gateway's process, from the environment.

Where it listens, where the service is, how long it waits.

Every field is a variable with the prefix ``OARLOCK_GATEWAY_``. What peers, rules and destinations are stands in one TOML file
(:mod:`gateway.configuration`). ``docs/gateway.md`` lists the settings, and a test compares the two.
"""

import difflib
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.errors import SetupInvalid
from oarlock.store.retention import to_seconds

PREFIX: Final = "OARLOCK_GATEWAY_"

Duration = Annotated[int, BeforeValidator(lambda value: to_seconds(value) if isinstance(value, str) else value)]
"""In seconds; written as ``0``, ``45m``, ``12h``, ``30d``."""

_PRODUCT: Final = re.compile(rf"{PREFIX}(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)")
"""Kubernetes writes these variables for a service that is called oarlock-gateway."""


class GatewaySettings(BaseSettings):
    """Read once by each command at its start."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    data: Path = Field(Path("var/gateway"), description="folder of what was received and of the gateway's own database")
    configuration: Path | None = Field(None, description="TOML file of peers, rules and destinations")
    host: str = Field("127.0.0.1", description="address that it listens on for DICOM")
    port: int = Field(11112, ge=0, le=65_535, description="port without TLS; 0 for any free one")
    plain: bool = Field(True, description="whether it listens without TLS")
    tls_port: int = Field(
        2762, ge=0, le=65_535, description="port with TLS, used once there is a certificate; 0 for any free one"
    )
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate and its chain")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key")
    tls_client_ca: Path | None = Field(None, description="PEM file of the authorities whose certificates a caller must show")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$",
        description="what the service and its users call this gateway, another for each; without it the machine's name",
    )
    report_s: float = Field(
        5.0,
        gt=0,
        le=20,
        description="seconds between two reports to the service, which says in its answer what it asks",
    )
    service: str = Field("http://127.0.0.1:8000", description="address of Oarlock's service")
    service_ca: Path | None = Field(
        None, description="PEM file of the authority of the service's certificate, where it is a site's own"
    )
    key: str | None = Field(None, repr=False, description="key of the service's API; scopes jobs:write and jobs:read")
    key_file: Path | None = Field(None, description="file that holds that key instead")
    settled_s: float = Field(2.0, ge=0, description="seconds after the last slice when a series shows by itself that it is whole")
    quiet_s: float = Field(60.0, ge=0, description="seconds without a new slice after which any series counts as whole")
    max_associations: int = Field(32, ge=1, description="most associations at once; more are told to come again")
    idle_s: float = Field(60.0, gt=0, description="seconds of silence after which an association is ended")
    min_free_bytes: int = Field(2_000_000_000, ge=0, description="free disk space below which senders are told: out of resources")
    keep: Duration = Field(
        86_400, description="how long a series stays here after its results are home, for slices that come late"
    )
    keep_known: Duration = Field(
        31_536_000, description="how long a series is known by its jobs without its images, for contours that are approved later"
    )
    attempts: int = Field(
        150, ge=1, description="how often a delivery is tried before it is a dead letter; the waits grow to 10 minutes"
    )
    metrics_host: str = Field("127.0.0.1", description="address of the gateway's own metrics")
    metrics_port: int | None = Field(9112, ge=0, le=65_535, description="port of the metrics; 0 for any free one")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None) or (self.tls_client_ca and not self.tls_certificate):
            raise ValueError(f"{PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY go together, and {PREFIX}TLS_CLIENT_CA needs both")
        if not self.plain and self.tls_certificate is None:
            raise ValueError(f"{PREFIX}PLAIN is off, and without {PREFIX}TLS_CERTIFICATE there is no other way in")
        if self.key and self.key_file:
            raise ValueError(f"{PREFIX}KEY and {PREFIX}KEY_FILE are both set; keep one of them")
        return self

    @property
    def called(self) -> str:
        """What the service calls this gateway."""
        return self.name or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip("._-")[:63] or "gateway"

    @property
    def secret(self) -> str | None:
        """The key of the service's API.

        None where the service is open to this machine.

        :raises SetupInvalid: its file cannot be read, or is empty.
        """
        if self.key_file is None:
            return self.key
        try:
            key = self.key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise SetupInvalid(f"{PREFIX}KEY_FILE names {self.key_file}, which cannot be read.") from None
        if not key:
            raise SetupInvalid(
                f"{PREFIX}KEY_FILE names {self.key_file}, which is empty: write the key of the service's API into it."
            )
        return key

    def tls(self) -> ssl.SSLContext | None:
        """What callers with TLS are met with; None without a certificate.

        :raises SetupInvalid: a file cannot be used.
        """
        if self.tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.tls_certificate, self.tls_key)
            if self.tls_client_ca:
                context.load_verify_locations(self.tls_client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError):
            raise SetupInvalid(f"{PREFIX}TLS_CERTIFICATE, TLS_KEY or TLS_CLIENT_CA does not name a PEM file that fits.") from None
        return context


def read_settings() -> GatewaySettings:
    """The settings that the environment holds.

    :raises SetupInvalid: with a sentence for each variable that is unknown, or whose value cannot be used.
    """
    known = {f"{PREFIX}{name.upper()}" for name in GatewaySettings.model_fields}
    strangers = [n for n in sorted(os.environ) if n.startswith(PREFIX) and n not in known and not _PRODUCT.fullmatch(n)]
    problems = [_unknown(name, known) for name in strangers]
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        problems += [_sentence(found["loc"], found["msg"]) for found in error.errors(include_input=False, include_url=False)]
    if problems:
        raise SetupInvalid(" ".join(problems))
    return settings


def _unknown(name: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"{name} is not a setting of the gateway." + (f" Did you mean {nearest[0]}?" if nearest else "")


def _sentence(where: tuple[int | str, ...], message: str) -> str:
    """What pydantic says of one setting, without its value: that may be a secret."""
    text = message.removeprefix("Value error, ").replace("Input should be", "must be").split(", unable")[0].rstrip(".") + "."
    return f"{PREFIX}{str(where[0]).upper()} {text}" if where else text
