"""The configuration file: one TOML file, checked as a whole.

It says who may send, what happens to a series, and where its results go.

``docs/gateway.md`` describes it table by table.
"""

import re
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.errors import SetupInvalid
from gateway.settings import Duration

SENDER: Final = "sender"
"""Stands for whoever sent the series, in the list of a rule's destinations."""

Result = Literal["rtstruct", "seg", "report"]
Kind = Literal["scout", "phase", "metal", "cone beam"]
KINDS: Final[tuple[Kind, ...]] = ("scout", "phase", "metal", "cone beam")


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error.msg})") from None
    return value


def _check_network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError("is neither an address nor a network, such as 10.1.2.0/24") from None


Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""A regular expression that is looked for anywhere in a text, in capitals or not."""

Network = Annotated[str, AfterValidator(_check_network)]
Title = Annotated[str, Field(pattern=r"^[\x21-\x5B\x5D-\x7E][\x20-\x5B\x5D-\x7E]{0,14}[\x21-\x5B\x5D-\x7E]?$")]
"""AE title: 1 to 16 characters of ASCII, no backslash, no blank at its ends (PS3.5 6.2)."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$")]
"""What the operator calls a peer or a place; it appears in logs, metrics and in the API, so a plain word."""


class Table(BaseModel):
    """A table of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Peer(Table):
    """A DICOM application beside the gateway.

    It sends series here, takes results, or is asked for series.
    """

    name: Name
    title: Title
    host: str | None = None
    port: int | None = Field(None, ge=1, le=65_535)
    sends: bool = True
    addresses: list[Network] = []
    tls: bool = False
    tls_ca: Path | None = None
    archive: bool = False
    retrieve: Literal["move", "get"] = "move"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.host is None) != (self.port is None):
            raise ValueError("has one of host and port; give both, or neither for a peer that only sends")
        return self

    @property
    def listens(self) -> bool:
        """Whether something can be sent to it."""
        return self.host is not None


class Web(Table):
    """A DICOMweb server that takes results by STOW-RS; ``url`` ends with ``/studies``."""

    name: Name
    url: Annotated[str, Field(pattern=r"^https?://\S+/studies/?$")]
    bearer_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    ca: Path | None = None


class Folder(Table):
    """A folder that results are written into."""

    name: Name
    path: Path


class Watch(Table):
    """A folder that series are dropped into.

    ``called`` stands for the AE title that its files count as sent to. A file counts as whole when its size and time stayed the
    same over ``looks`` looks, ``every_s`` seconds apart.
    """

    name: Name
    path: Path
    called: Title = "FOLDER"
    every_s: float = Field(2.0, gt=0)
    looks: int = Field(3, ge=2)


Place = Peer | Web | Folder | Watch
"""What results can be brought to; a watched folder gets those of the series that was dropped into it."""


class Thickness(Table):
    """Slice thickness in mm, both ends included."""

    min: float = 0.0
    max: float = float("inf")


class Rule(Table):
    """What a series has to be, and what then happens to it.

    Every condition that is given must hold.
    """

    name: Name
    called: list[Title] = []
    calling: list[Title] = []
    study_description: Pattern | None = None
    series_description: Pattern | None = None
    protocol_name: Pattern | None = None
    body_part: Pattern | None = None
    manufacturer: Pattern | None = None
    thickness_mm: Thickness | None = None

    ignore: bool = False
    takes: list[Kind] = []
    model: str | None = None
    profile: str | None = None
    priority: Literal["urgent", "normal", "low"] = "normal"
    keep: Duration | None = None
    send: list[Name] = [SENDER]
    results: list[Result] = Field(["rtstruct"], min_length=1)


class Configuration(Table):
    """The whole file."""

    titles: list[Title] = Field(["OARLOCK"], min_length=1)
    accept_unknown: bool = False
    leave_alone: list[Kind] = list(KINDS)
    peer: list[Peer] = []
    web: list[Web] = []
    folder: list[Folder] = []
    watch: list[Watch] = []
    rule: list[Rule] = []

    @model_validator(mode="after")
    def _check(self) -> Self:
        results = [place.name for place in self.web] + [place.name for place in self.folder]
        names = [peer.name for peer in self.peer] + results + [watch.name for watch in self.watch]
        names += [peer.title for peer in self.peer if peer.title in {watch.name for watch in self.watch}]
        for double in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {double!r} is given twice")
        places = {SENDER, *results, *(peer.name for peer in self.peer if peer.listens)}
        for rule in self.rule:
            for name in rule.send:
                if name not in places:
                    known = ", ".join(sorted(places))
                    raise ValueError(
                        f"the rule {rule.name!r} sends to {name!r}, which is not a place that takes results ({known})"
                    )
            strangers = set(rule.called) - set(self.titles) - {watch.called for watch in self.watch}
            if strangers:
                raise ValueError(f"the rule {rule.name!r} waits for the called title {min(strangers)!r}, which is not in titles")
        return self

    def peer_titled(self, title: str) -> Peer | None:
        """The peer with an AE title; None for a stranger."""
        return next((peer for peer in self.peer if peer.title == title), None)

    def place(self, name: str) -> Place | None:
        """What takes results under a name.

        None where the file does not have it any more.
        """
        places: list[Place] = [*(peer for peer in self.peer if peer.listens), *self.web, *self.folder, *self.watch]
        return next((place for place in places if place.name == name), None)

    def watch_named(self, name: str) -> Watch | None:
        """The watched folder of a name; None for anything else."""
        return next((watch for watch in self.watch if watch.name == name), None)


def read_configuration(path: Path | None) -> Configuration:
    """The configuration of a file; without one the defaults.

    :raises SetupInvalid: with a sentence for each problem and where it stands.
    """
    if path is None:
        return Configuration()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise SetupInvalid(f"{path} cannot be read.") from None
    except tomllib.TOMLDecodeError as error:
        raise SetupInvalid(f"{path} is not valid TOML: {error}.") from None
    try:
        return Configuration.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise SetupInvalid(" ".join(_sentence(path, content, one["loc"], one["msg"]) for one in found)) from None


def _sentence(path: Path, content: dict[str, object], where: tuple[int | str, ...], message: str) -> str:
    """What pydantic says of one place of the file, with the name of the entry that it stands in."""
    text = (
        message.removeprefix("Value error, ")
        .replace("Input should", "must")
        .replace("Extra inputs are not permitted", "is not known here")
    )
    text = text.replace("Field required", "is missing").replace("String should", "must").rstrip(".")
    if not where:
        return f"{path}: {text}."
    steps = [str(step) for step in where]
    if len(where) > 1 and isinstance(where[1], int):
        entries = content.get(steps[0])
        entry = entries[where[1]] if isinstance(entries, list) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        steps[:2] = [f"{steps[0]} {name!r}" if name else f"{steps[0]} number {where[1] + 1}"]
    return f"{path}: {', '.join(steps)}: {text}."
