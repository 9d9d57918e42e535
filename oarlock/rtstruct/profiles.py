"""Site profiles: how a department wants its RTSTRUCTs to look.

They don't change where the contours lie.

A profile is a TOML file named after itself. It chooses which OARs are written, in which order, with which names and colours, the
label and description of the structure set, whether empty ROIs are kept, and a maximum of points for a contour. Some for common
planning systems come with Oarlock (``oarlock/rtstruct/tps``); a site adds its own in a folder (``OARLOCK_PROFILES``).
``docs/profiles.md`` explains every key. Files are checked when a process starts. A file that breaks a rule is refused.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

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
MOST_POINTS: Final = 1_000_000

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_FIELD: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class ROIStyle:
    """How one OAR is written.

    Its ROI Name and its colour (sRGB, 0 to 255).
    """

    oar: OAR
    name: str
    colour: tuple[int, int, int]


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

    def styles_of(self, oars: Sequence[OAR]) -> tuple[ROIStyle, ...]:
        """The ROIs that are made of a model's OARs.

        In their order in the file.
        """
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
    """The shipped profiles and those of a site, by name.

    A site's file takes the place of a shipped one of the same name.

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
        raise ProfileInvalid(profile=name, reason="OARLOCK_PROFILE names it, but it does not exist")
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
    if not _NAME.fullmatch(name):
        reason = "the file's name must be up to 32 small letters, digits, - and _, and end in .toml"
        raise ProfileInvalid(profile="?", reason=reason)
    try:
        return _profile(name, _File.model_validate(tables))
    except ValidationError as error:
        raise ProfileInvalid(profile=name, reason=_reason(error)) from error
    except ValueError as error:
        raise ProfileInvalid(profile=name, reason=str(error)) from error


# ── the tables of a file ──────────────────────────────────────────────────────────────────────────────────────────────


def _printable(text: str) -> str:
    """A text that an element can hold (PS3.5 6.2)."""
    if not text.isprintable() or "\\" in text or text != text.strip(" "):
        raise ValueError("must not hold a backslash, a character that cannot be printed, or a blank at an end")
    return text


def _ascii(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII, as it is written in the character set of any CT")
    return text


def _label_template(text: str) -> str:
    _check_fields(text, ("date", "time", "model", "version"))
    shortest = _filled(text, {"date": "000000", "time": "0000", "model": "", "version": ""})
    if not shortest.strip() and "{model}" not in text and "{version}" not in text:
        raise ValueError("must not be empty")
    if len(shortest) > LONGEST_LABEL:
        raise ValueError(f"must not be longer than {LONGEST_LABEL} characters")
    return text


def _series_description(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"must not be longer than {LONGEST_TEXT} characters")
    if "UNAPPROVED" not in text:
        raise ValueError("must hold the word UNAPPROVED: nobody has approved the contours")
    return text


def _name_template(text: str) -> str:
    _check_fields(text, _name_fields(OARS[0]))
    return text


def _known_oar(name: str) -> str:
    if name not in BY_NAME:
        raise ValueError(f"must be one of {', '.join(BY_NAME)}")
    return name


def _check_fields(template: str, fields: Iterable[str]) -> None:
    """Refuse a template with braces that are not one of these fields."""
    known = sorted(fields)
    if set(_FIELD.findall(template)) - set(known) or set(_FIELD.sub("", template)) & set("{}"):
        raise ValueError(f"may have the fields {', '.join(f'{{{field}}}' for field in known)} and no others")


_Text = Annotated[str, AfterValidator(_printable)]
_NameTemplate = Annotated[_Text, AfterValidator(_name_template)]
_Level = Annotated[int, Field(ge=0, le=255)]


class _Table(BaseModel):
    """A table of the file; a misspelt key is refused, and a number is not taken for a text."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _StructureSet(_Table):
    label: Annotated[_Text, AfterValidator(_ascii), AfterValidator(_label_template)] = "OARLOCK {date}"
    series_description: Annotated[_Text, AfterValidator(_ascii), AfterValidator(_series_description)] = (
        "Oarlock contours (UNAPPROVED)"
    )
    empty_rois: Literal["keep", "leave_out"] = "keep"


class _Names(_Table):
    template: _NameTemplate = "{tg263}"
    max_length: int = Field(16, ge=1, le=LONGEST_TEXT)


class _Contours(_Table):
    max_points: int | None = Field(None, ge=FEWEST_POINTS, le=MOST_POINTS)
    max_deviation_mm: float = Field(0.3, gt=0, le=LARGEST_DEVIATION_MM)


class _ROI(_Table):
    oar: Annotated[str, AfterValidator(_known_oar)]
    name: _NameTemplate | None = None
    colour: Annotated[list[_Level], Field(min_length=3, max_length=3)] | None = None


class _File(_Table):
    description: _Text = ""
    structure_set: _StructureSet = _StructureSet()
    names: _Names = _Names()
    contours: _Contours = _Contours()
    roi: tuple[_ROI, ...] = Field((), strict=False)


_WANTED: Final = {
    "empty_rois": '"keep" or "leave_out"',
    "max_length": f"a whole number from 1 to {LONGEST_TEXT}",
    "max_points": f"a whole number from {FEWEST_POINTS} to {MOST_POINTS:,}",
    "max_deviation_mm": f"a number over 0 and up to {LARGEST_DEVIATION_MM}",
    "colour": "three whole numbers from 0 to 255",
    "roi": "a list of tables",
    **dict.fromkeys(("structure_set", "names", "contours"), "a table"),
}
"""What the value of a key must be, for the sentence that refuses another one; of a key that is not listed, a text."""


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong with a file, as a sentence that names its key."""
    first = error.errors(include_url=False, include_input=False)[0]
    *tables, key = [step for step in first["loc"] if isinstance(step, str)]
    if tables[1:]:  # a level of a colour is not named by itself
        tables, key = tables[:1], tables[1]
    where = f"[{tables[0]}] " if tables else ""
    if numbers := [step + 1 for step in first["loc"] if isinstance(step, int)]:
        where = f"[[roi]] number {numbers[0]}: "
    match first["type"]:
        case "extra_forbidden":
            return f"{where or 'the file: '}the key {key} is unknown"
        case "missing":
            return f"{where}{key} is missing"
        case "value_error":
            return f"{where}{key} {first['ctx']['error']}"
    return f"{where}{key} must be {_WANTED.get(key, 'a text')}"


# ── from the tables to a profile ──────────────────────────────────────────────────────────────────────────────────────


def _profile(name: str, file: _File) -> Profile:
    """:raises ValueError: names of ROIs are too long or alike."""
    return Profile(
        name=name,
        description=file.description,
        label=file.structure_set.label,
        series_description=file.structure_set.series_description,
        keep_empty=file.structure_set.empty_rois == "keep",
        styles=_styles(file),
        ordered=bool(file.roi),
        max_name_length=file.names.max_length,
        max_points=file.contours.max_points,
        max_deviation_mm=file.contours.max_deviation_mm,
    )


def _styles(file: _File) -> tuple[ROIStyle, ...]:
    styles = tuple(_style(roi, file.names) for roi in file.roi or [_ROI(oar=oar.name) for oar in OARS])
    _check_unique([style.oar.name for style in styles], "[[roi]] lists an OAR twice")
    _check_unique([style.name.casefold() for style in styles], "two OARs have the same name, or names that differ in case alone")
    return styles


def _style(roi: _ROI, names: _Names) -> ROIStyle:
    oar = BY_NAME[roi.oar]
    name = _filled(names.template if roi.name is None else roi.name, _name_fields(oar)).strip(" ")
    if not 1 <= len(name) <= names.max_length:
        allowed = f"1 to {names.max_length} are allowed ([names] max_length)"
        raise ValueError(f"the name of {oar} has {len(name)} characters; {allowed}")
    red, green, blue = oar.colour if roi.colour is None else roi.colour
    return ROIStyle(oar, name, (red, green, blue))


def _check_unique(values: Sequence[str], reason: str) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{reason}: {', '.join(twice)}")


def _filled(template: str, fields: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda match: fields[match[1]], template)


def _name_fields(oar: OAR) -> dict[str, str]:
    """What a name's template may be made of."""
    side = "" if oar.laterality is None else oar.name[-1]
    return {"tg263": oar.name, "paper": oar.paper_name, "organ": oar.name.removesuffix(f"_{side}"), "side": side}


GENERIC: Final = to_profile(GENERIC_NAME, {"description": "Every OAR of the model by its TG-263 name"})
"""What is written where nobody asks for anything else."""
