"""Site profiles: how a department wants its RTSTRUCTs to look, without a word of the contours being another one.

A profile is a TOML file named after itself. It chooses which OARs are written, in which order, with which names and colours, the
label and description of the structure set, whether empty ROIs are kept, and a maximum of points for a contour. Some for common
planning systems come with Oarlock (``oarlock/rtstruct/tps``); a site adds its own in a folder (``OARLOCK_PROFILES``).
``docs/profiles.md``
explains every key; a file that breaks the rules is refused with the reason when a process starts, never when a job is done.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from oarlock.errors import ProfileInvalid, UnknownProfile
from oarlock.organs.catalogue import BY_NAME, OAR, OARS

GENERIC_NAME: Final = "generic"
SHIPPED: Final = Path(__file__).parent / "tps"

LONGEST_LABEL: Final = 16
"""Of Structure Set Label and ROI Observation Label, which are Short Strings (PS3.5 6.2)."""

LONGEST_TEXT: Final = 64
"""Of ROI Name and Series Description, which are Long Strings (PS3.5 6.2)."""

LARGEST_DEVIATION_MM: Final = 1.0
FEWEST_POINTS: Final = 16

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "structure_set": frozenset({"label", "series_description", "empty_rois"}),
    "names": frozenset({"template", "max_length"}),
    "contours": frozenset({"max_points", "max_deviation_mm"}),
    "roi": frozenset({"oar", "name", "colour"}),
    "limit": frozenset({"what", "value", "source"}),
}
_EMPTY: Final = {"keep": True, "leave_out": False}


@dataclass(frozen=True, slots=True)
class ROIStyle:
    """How one OAR is written: its ROI Name and its colour (sRGB, 0 to 255)."""

    oar: OAR
    name: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a planning system is known to accept, and who says so; the source may be "unverified"."""

    what: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Profile:
    """How an RTSTRUCT is written.

    :param label: template of Structure Set Label; its fields are ``date`` (YYMMDD), ``time`` (HHMM), ``model`` and ``version``.
    :param keep_empty: whether an OAR that the model did not find is listed as an ROI without contours.
    :param styles: of every OAR that may be written.
    :param ordered: whether ``styles`` also gives the order; otherwise that of the model counts.
    :param max_points: most points of one contour; None for no maximum.
    :param max_deviation_mm: how far a contour may leave the exact one to come down to that.
    """

    name: str
    description: str
    label: str
    series_description: str
    keep_empty: bool
    styles: tuple[ROIStyle, ...]
    ordered: bool
    max_name_length: int
    max_points: int | None
    max_deviation_mm: float
    limits: tuple[Limit, ...]

    def styles_of(self, oars: Sequence[OAR]) -> tuple[ROIStyle, ...]:
        """The ROIs that are made of a model's OARs, in their order in the file."""
        if self.ordered:
            return tuple(style for style in self.styles if style.oar in oars)
        by_oar = {style.oar: style for style in self.styles}
        return tuple(by_oar[oar] for oar in oars)

    def not_drawn(self, oars: Sequence[OAR]) -> tuple[OAR, ...]:
        """OARs that the profile names and the model does not draw."""
        return tuple(style.oar for style in self.styles if self.ordered and style.oar not in oars)

    def structure_set_label(self, created: datetime, *, model: str, version: str) -> str:
        """Structure Set Label of a file, cut to what it may hold."""
        fields = {"date": f"{created:%y%m%d}", "time": f"{created:%H%M}", "model": model, "version": version}
        return _filled(self.label, fields)[:LONGEST_LABEL].rstrip()


def read_profiles(folder: Path | None) -> dict[str, Profile]:
    """The shipped profiles and those of a site, by name; a site's file takes the place of a shipped one of the same name.

    :param folder: of the site; None for none.
    :raises ProfileInvalid: for the first one that is wrong, or if the folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise ProfileInvalid(profile="", reason="the folder of the site's profiles (OARLOCK_PROFILES) does not exist")
    files = {path.stem: path for source in (SHIPPED, folder) if source for path in sorted(source.glob("*.toml"))}
    return {name: read_profile(files[name]) for name in sorted(files)}


def read_profile(path: Path) -> Profile:
    """Read and check one profile, which is named after its file.

    :raises ProfileInvalid: with the key that is wrong and why.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProfileInvalid(profile=path.stem, reason=f"the file cannot be read ({type(error).__name__})") from error
    return to_profile(path.stem, tables)


def check_default(profiles: Mapping[str, Profile], name: str) -> Profile:
    """The profile that is used when nobody names one.

    :raises ProfileInvalid: if there is none of that name.
    """
    if name not in profiles:
        raise ProfileInvalid(profile=name, reason="OARLOCK_PROFILE names it, and there is no such profile")
    return profiles[name]


def profile_named(profiles: Mapping[str, Profile], name: str) -> Profile:
    """The profile of this name.

    :raises UnknownProfile: if there is none.
    """
    if name not in profiles:
        raise UnknownProfile(available=list(profiles))
    return profiles[name]


def to_profile(name: str, tables: Mapping[str, Any]) -> Profile:
    """A profile from the tables of its file.

    :raises ProfileInvalid: with the key that is wrong and why.
    """
    return _Reader(name, tables).profile()


def _filled(template: str, fields: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda match: fields[match[1]], template)


def _name_fields(oar: OAR) -> dict[str, str]:
    """What a name's template may be made of."""
    side = "" if oar.laterality is None else oar.name[-1]
    return {"tg263": oar.name, "paper": oar.paper_name, "organ": oar.name.removesuffix(f"_{side}"), "side": side}


class _Reader:
    """Takes the tables of one profile apart and says which key is wrong."""

    def __init__(self, name: str, tables: Mapping[str, Any]) -> None:
        self._name, self._tables = name, tables

    def profile(self) -> Profile:
        if not _NAME.fullmatch(self._name):
            raise self._fail("the file's name must be up to 32 small letters, digits, - and _, and end in .toml")
        self._check_keys()
        max_length = self._number("names", "max_length", 16, 1, LONGEST_TEXT)
        rois = self._entries("roi")
        return Profile(
            name=self._name,
            description=self._text(self._tables, "description", "description", "", ascii_only=False),
            label=self._label(),
            series_description=self._series_description(),
            keep_empty=self._keep_empty(),
            styles=self._styles(rois, max_length),
            ordered=bool(rois),
            max_name_length=max_length,
            max_points=self._max_points(),
            max_deviation_mm=self._max_deviation_mm(),
            limits=tuple(self._limit(entry) for entry in self._entries("limit")),
        )

    def _fail(self, reason: str) -> ProfileInvalid:
        return ProfileInvalid(profile=self._name if _NAME.fullmatch(self._name) else "?", reason=reason)

    def _check_keys(self) -> None:
        """A misspelt key is not ignored."""
        self._refuse_unknown(self._tables, {"description", *_KEYS}, "the file")
        for name in ("structure_set", "names", "contours"):
            table = self._tables.get(name, {})
            if not isinstance(table, dict):
                raise self._fail(f"[{name}] is not a table")
            self._refuse_unknown(table, _KEYS[name], f"[{name}]")
        for name in ("roi", "limit"):
            for entry in self._entries(name):
                self._refuse_unknown(entry, _KEYS[name], f"[[{name}]]")

    def _refuse_unknown(self, table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise self._fail(f"{where} has a key that is not known: {', '.join(unknown)}")

    def _entries(self, name: str) -> list[dict[str, Any]]:
        entries = self._tables.get(name, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._fail(f"[[{name}]] is not a list of tables")
        return entries

    def _text(self, table: Mapping[str, Any], key: str, where: str, default: str | None, *, ascii_only: bool = True) -> str:
        """A text that an element can hold: printable, no backslash, no blanks around it (PS3.5 6.2)."""
        value = table.get(key, default)
        if not isinstance(value, str):
            raise self._fail(f"{where} is missing or not a text")
        if not value.isprintable() or "\\" in value or value != value.strip(" "):
            raise self._fail(f"{where} holds a character that an element cannot hold, or a blank at an end")
        if ascii_only and not value.isascii():
            raise self._fail(f"{where} must be ASCII, as it is written in the character set of any CT")
        return value

    def _check_template(self, template: str, fields: Iterable[str], where: str) -> None:
        known = set(fields)
        found = set(_FIELD.findall(template))
        if found - known or set(_FIELD.sub("", template)) & set("{}"):
            raise self._fail(f"{where} may have the fields {', '.join(f'{{{field}}}' for field in sorted(known))} and no others")

    def _label(self) -> str:
        label = self._text(self._tables.get("structure_set", {}), "label", "[structure_set] label", "OARLOCK {date}")
        self._check_template(label, ("date", "time", "model", "version"), "[structure_set] label")
        shortest = _filled(label, {"date": "000000", "time": "0000", "model": "", "version": ""})
        if not shortest.strip() and "{model}" not in label and "{version}" not in label:
            raise self._fail("[structure_set] label is empty")
        if len(shortest) > LONGEST_LABEL:
            raise self._fail(f"[structure_set] label is longer than {LONGEST_LABEL} characters")
        return label

    def _series_description(self) -> str:
        where = "[structure_set] series_description"
        table = self._tables.get("structure_set", {})
        text = self._text(table, "series_description", where, "Oarlock contours (UNAPPROVED)")
        if len(text) > LONGEST_TEXT:
            raise self._fail(f"{where} is longer than {LONGEST_TEXT} characters")
        if "UNAPPROVED" not in text:
            raise self._fail(f"{where} must hold the word UNAPPROVED: nobody has approved the contours")
        return text

    def _keep_empty(self) -> bool:
        value = self._tables.get("structure_set", {}).get("empty_rois", "keep")
        if value not in _EMPTY:
            raise self._fail('[structure_set] empty_rois must be "keep" or "leave_out"')
        return _EMPTY[value]

    def _number(self, table: str, key: str, default: int, low: int, high: int) -> int:
        value = self._tables.get(table, {}).get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._fail(f"[{table}] {key} must be a whole number from {low} to {high}")
        return value

    def _max_points(self) -> int | None:
        if "max_points" not in self._tables.get("contours", {}):
            return None
        return self._number("contours", "max_points", FEWEST_POINTS, FEWEST_POINTS, 1_000_000)

    def _max_deviation_mm(self) -> float:
        value = self._tables.get("contours", {}).get("max_deviation_mm", 0.3)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= LARGEST_DEVIATION_MM:
            raise self._fail(f"[contours] max_deviation_mm must be a number over 0 and up to {LARGEST_DEVIATION_MM}")
        return float(value)

    def _styles(self, entries: Sequence[Mapping[str, Any]], max_length: int) -> tuple[ROIStyle, ...]:
        template = self._text(self._tables.get("names", {}), "template", "[names] template", "{tg263}", ascii_only=False)
        styles = [self._style(entry, template, max_length) for entry in entries or [{"oar": oar.name} for oar in OARS]]
        self._check_unique([style.oar.name for style in styles], "[[roi]] lists an OAR twice")
        self._check_unique(
            [style.name.casefold() for style in styles], "two OARs have the same name, or names that differ in case alone"
        )
        return tuple(styles)

    def _check_unique(self, values: Sequence[str], reason: str) -> None:
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise self._fail(f"{reason}: {', '.join(twice)}")

    def _style(self, entry: Mapping[str, Any], template: str, max_length: int) -> ROIStyle:
        key = entry.get("oar")
        if key not in BY_NAME:
            raise self._fail("[[roi]] oar is missing, or not an OAR of this house (GET /v1/models lists them)")
        oar, where = BY_NAME[key], f"[[roi]] name of {key}"
        wanted = self._text(entry, "name", where, template, ascii_only=False)
        fields = _name_fields(oar)
        self._check_template(wanted, fields, where)
        name = _filled(wanted, fields).strip(" ")
        if not 1 <= len(name) <= max_length:
            raise self._fail(f"{where} has {len(name)} characters; 1 to {max_length} are allowed ([names] max_length)")
        return ROIStyle(oar, name, self._colour(entry, oar))

    def _colour(self, entry: Mapping[str, Any], oar: OAR) -> tuple[int, int, int]:
        value = entry.get("colour", list(oar.colour))
        levels = (
            [level for level in value if isinstance(level, int) and not isinstance(level, bool)]
            if isinstance(value, list)
            else []
        )
        if len(levels) != 3 or levels != value or not all(0 <= level <= 255 for level in levels):
            raise self._fail(f"[[roi]] colour of {oar.name} must be three whole numbers from 0 to 255")
        return levels[0], levels[1], levels[2]

    def _limit(self, entry: Mapping[str, Any]) -> Limit:
        what, value, source = (
            self._text(entry, key, f"[[limit]] {key}", None, ascii_only=False) for key in ("what", "value", "source")
        )
        return Limit(what, value, source)


GENERIC: Final = to_profile(GENERIC_NAME, {"description": "Every OAR of the model by its TG-263 name"})
"""What is written where nobody asks for anything else."""
