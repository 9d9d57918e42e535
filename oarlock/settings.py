"""Settings: everything an operator can choose, from the environment, in one place.

Every field is an environment variable with the prefix ``OARLOCK_`` (``REDIS_URL`` and ``DATABASE_URL`` keep their usual names). A
secret may stand in a file instead, which the same name with ``_FILE`` behind it points to. ``docs/operations.md`` lists them all,
and a test compares the two. A program starts with :func:`read_settings`, which says in sentences what is wrong.
"""

import base64
import binascii
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from oarlock.ct.rules import IntakeRules
from oarlock.errors import SiteFileInvalid
from oarlock.qa.site_file import Site, read_site
from oarlock.rtstruct.profiles import read_profiles
from oarlock.scopes import Scope
from oarlock.sites import SiteRules, read_sites
from oarlock.store.retention import Retention, to_seconds

NEVER: Final = "never"

Duration = Annotated[int, BeforeValidator(lambda value: to_seconds(value) if isinstance(value, str) else value)]
"""In seconds; written as ``0``, ``45m``, ``12h``, ``30d``."""

Kept = Annotated[Duration | None, BeforeValidator(lambda value: None if value == NEVER else value)]
"""How long something is kept: a duration, or None, written ``never``, for ever."""


SECRETS: Final[Mapping[str, str]] = {
    "redis_url": "REDIS_URL",
    "database_url": "DATABASE_URL",
    "callback_secrets": "OARLOCK_CALLBACK_SECRETS",
    "deidentify_key": "OARLOCK_DEIDENTIFY_KEY",
    "oidc_client_secret": "OARLOCK_OIDC_CLIENT_SECRET",
}
"""Settings that hold a secret, and their variables; a URL may hold a password."""

_NOT_SETTINGS: Final = frozenset(
    {"OARLOCK_SHARED", "OARLOCK_CHECKOUT", "OARLOCK_REVISION", "OARLOCK_TEST_MARK", "OARLOCK_OHIF", "OARLOCK_OHIF_PICTURE"}
)
"""Variables of the tests and of the images' build."""

_OTHERS_NAMES: Final = re.compile(r"OARLOCK_GATEWAY_\w+|OARLOCK_(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)")
"""The gateway reads its own settings; Kubernetes writes variables for each service that it runs."""


class SettingsInvalid(ValueError):
    """What is wrong with the settings, a sentence for each fault.

    Nothing starts with them.
    """


class _SecretFiles(PydanticBaseSettingsSource):
    """Secrets from files, for each of :data:`SECRETS` whose variable with ``_FILE`` behind it is set."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The content of the file without blanks at its ends, or None.

        :raises SettingsInvalid: if it cannot be read, or the secret is in the environment too.
        """
        variable = SECRETS.get(field_name, "")
        path = os.environ.get(f"{variable}_FILE")
        key = variable if field.validation_alias else field_name
        if not variable or not path:
            return None, key, False
        if os.environ.get(variable):
            msg = f"{variable} and {variable}_FILE are both set; keep one of them."
            raise SettingsInvalid(msg)
        try:
            return Path(path).read_text(encoding="utf-8").strip(), key, False
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            msg = f"{variable}_FILE names {path}, which cannot be read ({reason})."
            raise SettingsInvalid(msg) from error

    def __call__(self) -> dict[str, Any]:
        """The secrets that stand in files, by the names that the model knows."""
        found = (self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items())
        return {key: value for value, key, _ in found if value is not None}


class Settings(BaseSettings):
    """Read once by each process at its start."""

    model_config = SettingsConfigDict(env_prefix="OARLOCK_", extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What counts: arguments, then the environment, then files of secrets."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _SecretFiles(settings_cls)

    data: Path = Field(Path("var"), description="folder of the database and of the jobs' bytes")
    models: Path = Field(Path("models"), description="folder of the models")
    model: str = Field("oarlock-hn", description="model that is used when a job names none")
    shadow: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description="model that draws every finished job too, for the scores alone: NAME, or SITE=NAME by commas; SITE= for none",
    )
    profile: str = Field("generic", description="site profile that is used when neither a job nor its key names one")
    profiles: Path | None = Field(None, description="folder of the site's own profiles; without it the shipped ones alone")
    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "OARLOCK_REDIS_URL"),
        description="Redis server; without it the service starts a private one",
    )
    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "OARLOCK_DATABASE_URL"),
        description="PostgreSQL server; without it SQLite in the data folder",
    )
    host: str = Field("127.0.0.1", description="address that the service listens on")
    port: int = Field(8000, description="port that the service listens on; 0 for any free one")
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate and its chain: the service speaks TLS")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key")
    tls_client_ca: Path | None = Field(None, description="PEM file of the authorities whose client certificates are asked for")
    trusted_proxies: Annotated[list[str], NoDecode] = Field(
        [], description="addresses or networks of proxies, by commas, whose X-Forwarded-For and -Proto are believed"
    )
    plain_http: bool = Field(
        False, description="whether to listen beyond loopback without TLS and without a stated proxy, as inside a container"
    )
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="names, by commas, that Host may hold; without them any name, but only this machine's without a key"
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [], description="origins, by commas, as https://dashboard.example, whose pages may call the API with a key"
    )
    connections_per_address: int = Field(256, description="most connections from one address; a stated proxy has no limit")
    rate_per_minute: int = Field(1_200, description="most calls a minute from one key; 0 for no limit")
    oidc_issuer: str | None = Field(None, description="OpenID Connect issuer whose bearer tokens are taken beside keys")
    oidc_audience: str | None = Field(None, description="audience that such a token must name")
    oidc_scope_claim: str = Field("scope", description="claim, or path of claims with dots, that holds what the bearer may do")
    oidc_scope_map: dict[str, list[Scope]] = Field(
        {}, description="what the values of that claim mean, as JSON; a value that is itself a scope needs no entry"
    )
    oidc_site_claim: str | None = Field(
        None,
        description="claim, or path of claims with dots, that names the bearer's site; without it they see all sites",
    )
    oidc_client_id: str | None = Field(None, description="name of this service at the issuer: people sign in to the pages there")
    oidc_client_secret: str | None = Field(None, repr=False, description="secret of that client, where the issuer gave it one")
    embedded_worker: bool = Field(True, description="whether the service starts a worker process of its own")
    device: str = Field("auto", description="where the model runs: auto, cpu, cuda")
    backends: Annotated[list[str], NoDecode] = Field(
        [], description="other arithmetic to try, by commas, the first that draws the same is used: tf32, tensorrt, tensorrt-fp16"
    )
    backend_scan: Path | None = Field(None, description="folder of a CT series on which backends are proved, organ by organ")
    threads: int = Field(0, description="CPU threads of the model; 0 for all cores")
    max_upload_bytes: int = Field(4_000_000_000, description="largest body of a post, and largest content of its archives")
    max_upload_files: int = Field(5_000, description="most files in a post, members of archives included")
    max_archive_ratio: float = Field(
        200.0, description="largest ratio of an archive's content, where it is over 128 MB, to its packed size"
    )
    max_slices: int = Field(1_024, description="most slices in a series")
    gapped_series: Literal["refuse", "warn"] = Field(
        "refuse", description="what happens to a series whose slices say that others between them are missing: refuse, warn"
    )
    derived_images: Literal["refuse", "warn"] = Field(
        "warn", description="what happens to a series that is not a plain CT by its own words (MIP, VMI, CBCT, …): refuse, warn"
    )
    stow_quiet_s: float = Field(
        10.0, gt=0, description="how long nothing of a series may have come by STOW-RS before a job is made of it"
    )
    min_free_bytes: int = Field(2_000_000_000, description="free disk space below which nothing is accepted")
    lease_s: float = Field(15.0, description="how long a silent worker keeps its job")
    job_limit_s: float = Field(1_800.0, description="hard limit on one attempt at a job")
    alive_file: Path | None = Field(
        None,
        description="file that says until when a worker counts as alive, in seconds since 1970; for a health check",
    )
    time_zone: str | None = Field(
        None, description="time zone of the dates in an RTSTRUCT, as Europe/Berlin; without it that of the machine or container"
    )
    site_file: Path | None = Field(None, description="TOML file of the site's own names of ROIs and its own tolerances")
    sites: Path | None = Field(
        None, description="folder of a TOML file for each site: its names, action levels, profile, retention, rate and share"
    )
    callback_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="hosts, by commas, with a port where it is not the usual one, that jobs may name in callback_url"
    )
    callback_networks: Annotated[list[str], NoDecode] = Field(
        [], description="networks, by commas, that are not public and that callbacks may go into all the same"
    )
    callback_secrets: Annotated[list[str], NoDecode] = Field(
        [], repr=False, description="what callbacks are signed with, by commas: whsec_ and base64; each gives one signature"
    )
    deidentify_key: str | None = Field(
        None, repr=False, description="key that patients are sealed with when a series is de-identified; without it none is"
    )
    keep_input: Kept = Field("30d", validate_default=True, description="how long the input of a job stays, or never")
    keep_results: Kept = Field("365d", validate_default=True, description="how long a job and its results stay, or never")

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                msg = "is not a time zone that this system knows; write a name such as Europe/Berlin or America/Chicago"
                raise ValueError(msg) from error
        return value

    @property
    def zone(self) -> ZoneInfo | None:
        """The site's time zone; None for that of the machine.

        :meth:`datetime.datetime.astimezone` takes it so.
        """
        return None if self.time_zone is None else ZoneInfo(self.time_zone)

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is not None and re.match(r"(rediss?|unix)://", value) is None:
            raise ValueError("must be the URL of a Redis, as redis://HOST:6379/0, rediss://… or unix://…")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_database(cls, value: str | None) -> str | None:
        if value is not None and re.match(r"(postgres(ql)?(\+psycopg)?|sqlite)://", value) is None:
            raise ValueError("must be the URL of a PostgreSQL, as postgresql://USER@HOST/NAME")
        return value

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str) -> str:
        if value not in {"auto", "cpu", "cuda"}:
            raise ValueError("must be one of auto, cpu, cuda")
        return value

    @field_validator("backend_scan")
    @classmethod
    def _is_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("must be a folder that exists")
        return value

    @field_validator("backends")
    @classmethod
    def _are_backends(cls, value: list[str]) -> list[str]:
        if unknown := sorted(set(value) - {"tf32", "tensorrt", "tensorrt-fp16"}):
            raise ValueError(f"holds {unknown[0]}, which must be one of tf32, tensorrt, tensorrt-fp16")
        return value

    @model_validator(mode="after")
    def _check_backends(self) -> Self:
        if self.backends and self.backend_scan is None:
            msg = "OARLOCK_BACKENDS needs OARLOCK_BACKEND_SCAN: a backend is used only where it draws the same"
            raise ValueError(msg)
        return self

    @field_validator(
        *(
            "allowed_hosts",
            "cors_origins",
            "trusted_proxies",
            "backends",
            "callback_hosts",
            "callback_networks",
            "callback_secrets",
        ),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value

    @field_validator("shadow", mode="before")
    @classmethod
    def _by_site(cls, value: object) -> object:
        """By site, the model's name; under an empty name that of the sites which are not named."""
        if not isinstance(value, str):
            return value
        pairs = [entry.strip().rpartition("=") for entry in value.split(",") if entry.strip()]
        if len({site for site, _, _ in pairs}) < len(pairs):
            raise ValueError("names a site twice")
        return {site.strip(): model.strip() for site, _, model in pairs}

    @field_validator("allowed_hosts")
    @classmethod
    def _lower(cls, value: list[str]) -> list[str]:
        return [entry.lower().strip("[]") for entry in value]

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: list[str]) -> list[str]:
        """Take exact origins as browsers send them: a pattern, a path or `null` would let in more pages than were meant."""
        if any(re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", entry) is None for entry in value):
            raise ValueError("must be exact origins, as https://dashboard.example or http://localhost:3000, by commas")
        return value

    @field_validator("trusted_proxies", "callback_networks")
    @classmethod
    def _check_proxies(cls, value: list[str]) -> list[str]:
        """Take addresses and networks alone: a name cannot be compared with an address, and would be believed by mistake."""
        return [str(ip_network(entry)) for entry in value]

    @field_validator("deidentify_key")
    @classmethod
    def _check_key(cls, value: str | None) -> str | None:
        """32 bytes in URL-safe base64, as Fernet takes them."""
        if value is not None and len(_decoded(value.encode(), altchars=b"-_")) != 32:
            raise ValueError("is not a key; make one with: openssl rand -base64 32 | tr '+/' '-_'")
        return value

    @field_validator("callback_secrets")
    @classmethod
    def _check_callback_secrets(cls, value: list[str]) -> list[str]:
        """What signatures are made with (Standard Webhooks)."""
        if any(not text.startswith("whsec_") or len(_decoded(text[6:].encode())) < 24 for text in value):
            raise ValueError("must be whsec_ and at least 24 random bytes in base64; several by commas")
        return value

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None) or (self.tls_client_ca and not self.tls_certificate):
            msg = "OARLOCK_TLS_CERTIFICATE and OARLOCK_TLS_KEY go together, and OARLOCK_TLS_CLIENT_CA needs both"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_callbacks(self) -> Self:
        if self.callback_hosts and not self.callback_secrets:
            msg = "OARLOCK_CALLBACK_HOSTS needs OARLOCK_CALLBACK_SECRETS: a receiver must be able to tell who calls"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _check_oidc(self) -> Self:
        if self.oidc_client_id and not self.oidc_issuer:
            msg = "OARLOCK_OIDC_CLIENT_ID needs OARLOCK_OIDC_ISSUER: it is a name there"
            raise ValueError(msg)
        if self.oidc_issuer and not self.oidc_audience:
            msg = "OARLOCK_OIDC_ISSUER needs OARLOCK_OIDC_AUDIENCE: a token for another service must not open this one"
            raise ValueError(msg)
        return self

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the job table."""
        return self.database_url or f"sqlite:///{(self.data / 'oarlock.sqlite').resolve()}"

    @property
    def reserve_bytes(self) -> int:
        """Free disk space below which no job is begun.

        What is left when nothing is accepted any more is for the results of what was accepted; a tenth of it holds those of many
        jobs. Were it the same limit, uploads that filled the disk up to it would stop the jobs whose end makes room again.
        """
        return self.min_free_bytes // 10

    @property
    def broker_url(self) -> str:
        """URL of the queue as Celery spells it.

        A unix socket has a scheme of its own there.
        """
        url = self.redis_url or "redis://localhost:6379/0"
        return url.replace("unix://", "redis+socket://", 1)

    def shadow_of(self, site: str) -> str | None:
        """The model that draws the jobs of a site too, without delivering.

        None for none.
        """
        return self.shadow.get(site, self.shadow.get("", "")) or None

    @property
    def intake_rules(self) -> IntakeRules:
        """What the door refuses."""
        return IntakeRules(self.max_slices, self.gapped_series == "refuse", self.derived_images == "refuse")

    @property
    def retention(self) -> Retention:
        """How long jobs stay whose key does not say."""
        return Retention(self.keep_input, self.keep_results)

    @cached_property
    def site(self) -> Site:
        """The site's own names and tolerances.

        Each process asks at its start, so that a bad file is met then.

        :raises SiteFileInvalid: see :func:`oarlock.qa.site_file.read_site`.
        """
        return read_site(self.site_file) if self.site_file else Site()

    @cached_property
    def rules(self) -> Mapping[str, SiteRules]:
        """What sites set for themselves, by their names.

        Each process asks at its start.

        :raises SiteFileInvalid: see :func:`oarlock.sites.read_sites`.
        """
        return read_sites(self.sites) if self.sites else {}

    def check_sites(self) -> None:
        """Check that the files of all sites can be used.

        The server's own too; the profiles that they name must be there.

        :raises SiteFileInvalid: if not.
        """
        _ = self.site
        named = {one.profile: site for site, one in self.rules.items() if one.profile is not None}
        for profile in named.keys() - (read_profiles(self.profiles).keys() if named else ()):
            raise SiteFileInvalid(reason=f"in {named[profile]}.toml, {profile} is not the name of a profile")

    def site_of(self, name: str) -> Site:
        """What counts for the jobs of a site.

        Its own file, or the server's; the server's for an operator's (empty).
        """
        return self.rules[name].file if name in self.rules else self.site

    def broker_transport_options(self) -> dict[str, Any]:
        """Options of Celery's Redis transport that both faces must share.

        The visibility timeout lies above the hard limit of a job: a task that outlives it would run twice at once.
        """
        return {
            "priority_steps": list(range(10)),
            "queue_order_strategy": "priority",
            "visibility_timeout": self.job_limit_s + 600,
            "unacked_restore_interval": 5,
        }


def _decoded(text: bytes, altchars: bytes | None = None) -> bytes:
    """The bytes of base64; not one where it is malformed."""
    try:
        return base64.b64decode(text, altchars=altchars, validate=True)
    except binascii.Error:
        return b""


def read_settings() -> Settings:
    """The settings that the environment holds.

    :raises SettingsInvalid: with a sentence for each variable that is unknown, or whose value cannot be used.
    """
    problems = [_unknown(name) for name in unknown_names(os.environ)]
    try:
        settings = Settings()
    except ValidationError as error:
        problems += [_sentence(found["loc"], found["msg"]) for found in error.errors(include_input=False, include_url=False)]
    except SettingsInvalid as error:
        problems.append(str(error))
    except SettingsError as error:
        problems.append(_unreadable(error))
    if problems:
        raise SettingsInvalid(" ".join(problems))
    return settings


def variables() -> dict[str, str]:
    """The variable of each setting, by the setting's name."""
    return {name: SECRETS.get(name, f"OARLOCK_{name.upper()}") for name in Settings.model_fields}


def unknown_names(environment: Iterable[str]) -> list[str]:
    """Variables that begin like settings of Oarlock and are not."""
    known = {*variables().values(), *(f"OARLOCK_{name.upper()}" for name in SECRETS), *_NOT_SETTINGS}
    known |= {f"{variable}_FILE" for variable in SECRETS.values()}
    return sorted(n for n in environment if n.startswith("OARLOCK_") and n not in known and not _OTHERS_NAMES.fullmatch(n))


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, variables().values(), n=1, cutoff=0.7)
    return f"{name} is not a setting of Oarlock." + (f" Did you mean {nearest[0]}?" if nearest else "")


def _sentence(where: tuple[int | str, ...], message: str) -> str:
    """What pydantic says of one setting, without its value: that may be a secret."""
    text = message.removeprefix("Value error, ").replace("Input should be", "must be").split(", unable")[0].rstrip(".") + "."
    if not where:
        return text  # it names the settings itself
    return f"{variables().get(str(where[0]), str(where[0]))} {text}"


def _unreadable(error: SettingsError) -> str:
    """The sentence for a setting that is to be JSON and is not."""
    found = re.search(r'field "(\w+)"', str(error))
    return f"{variables().get(found[1], found[1]) if found else 'A setting'} is not valid JSON."
