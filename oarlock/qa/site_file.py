"""What a site sets for itself, in one TOML file.

Its name, its own names of ROIs and its own tolerances; a setting names the file.

    name = "Radiotherapy, St Elsewhere"       # stands in QA reports

    [names]                      # ROI name = OAR; "" for a name that is never an OAR
    "Ohrspeichel links" = "Parotid_L"
    "Cord old" = ""

    [tolerances_mm]              # OAR = tolerance of surface DSC in mm
    Parotid_L = 3.0

    [action_levels.all]          # what a drawing of any organ must reach, or stay below, to pass
    surface_dsc = 0.8
    [action_levels.Parotid_L]    # of one organ, in place of that
    surface_dsc = 0.85
    hausdorff_95_mm = 8.0

The file is read and checked when a process starts: a name that is misspelt in it would be a wrong number later.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError

from oarlock.errors import SiteFileInvalid
from oarlock.organs.catalogue import BY_NAME, OAR, OARS
from oarlock.organs.roi_names import known_names
from oarlock.qa.action_levels import LEAST, MOST, ActionLevels

LARGEST_TOLERANCE_MM: Final = 20.0
ALL: Final = "all"
"""Stands for every organ in a table of action levels."""

LONGEST_NAME: Final = 100
LARGEST_FILE_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class Site:
    """A site's own choices; without a file there are none.

    :param names: ROI name to the TG-263 name of a supported OAR, or to "" for a name that is never an OAR.
    :param tolerances_mm: in place of the paper's, in mm.
    :param name: what it calls itself, for reports.
    :param action_levels: of each organ, see :mod:`oarlock.qa.action_levels`.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    tolerances_mm: Mapping[OAR, float] = field(default_factory=dict)
    name: str | None = None
    action_levels: Mapping[OAR, ActionLevels] = field(default_factory=dict)


_Tolerance = Annotated[StrictFloat | StrictInt, Field(gt=0, le=LARGEST_TOLERANCE_MM, allow_inf_nan=False)]

_Level = Annotated[StrictFloat | StrictInt, Field(ge=0, allow_inf_nan=False)]


class _SiteFile(BaseModel):
    """The file as it may be written."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_NAME)] | None = None
    names: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    tolerances_mm: dict[StrictStr, _Tolerance] = Field(default_factory=dict)
    action_levels: dict[StrictStr, dict[StrictStr, _Level]] = Field(default_factory=dict)


def read_site(path: Path) -> Site:
    """Read and check a site's file.

    :raises SiteFileInvalid: it cannot be read, is not TOML, or says something that has no meaning here.
    """
    return site_of(read_tables(path))


def site_of(tables: Mapping[str, Any]) -> Site:
    """Check what a site's file says.

    :raises SiteFileInvalid: it says something that has no meaning here.
    """
    try:
        found = _SiteFile.model_validate(tables)
        known_names(found.names)
    except ValidationError as error:
        raise SiteFileInvalid(reason=_reason(error)) from error
    except ValueError as error:
        raise SiteFileInvalid(reason=f"in [names], {error}") from error
    if unknown := sorted(set(found.tolerances_mm) - set(BY_NAME)):
        raise SiteFileInvalid(reason=f"in [tolerances_mm], {unknown[0]} is not a supported OAR")
    levels = _action_levels(found.action_levels)
    return Site(found.names, {BY_NAME[name]: float(value) for name, value in found.tolerances_mm.items()}, found.name, levels)


def _action_levels(tables: Mapping[str, Mapping[str, float]]) -> dict[OAR, ActionLevels]:
    """The levels of every organ, those for all organs among them."""
    for organ, levels in tables.items():
        if organ != ALL and organ not in BY_NAME:
            raise SiteFileInvalid(reason=f"in [action_levels], {organ} is not a supported OAR; {ALL} stands for all of them")
        for name, level in levels.items():
            if name not in (*LEAST, *MOST):
                raise SiteFileInvalid(reason=f"in [action_levels.{organ}], {name} is not one of {', '.join((*LEAST, *MOST))}")
            if name in LEAST and level > 1:
                raise SiteFileInvalid(reason=f"in [action_levels.{organ}], {name} must be at most 1")
    return {oar: {**tables.get(ALL, {}), **tables.get(oar.name, {})} for oar in OARS} if tables else {}


def read_tables(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    :raises SiteFileInvalid: it cannot be read, is too large or is not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
        if len(content) > LARGEST_FILE_BYTES:
            raise SiteFileInvalid(reason=f"it is larger than {LARGEST_FILE_BYTES} bytes")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise SiteFileInvalid(reason=f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML: both are said with their place
        raise SiteFileInvalid(reason=f"it is not TOML ({error})") from error


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong, in a sentence."""
    table, *key = error.errors()[0]["loc"]
    if table not in _SiteFile.model_fields:
        return f"it has an unknown table or key, {table}; it may hold {' and '.join(_SiteFile.model_fields)}"
    if table == "name":
        return f"name must be text of 1 to {LONGEST_NAME} characters, in quotes"
    if table == "names":
        return '[names] must say ROI name = OAR, both in quotes, or = "" for a name that is never an OAR'
    if table == "action_levels":
        return "[action_levels.ORGAN] must say number = level, 0 or more"
    if not key:
        return "[tolerances_mm] must say OAR = number"
    return f"in [tolerances_mm], {key[0]} must be a number above 0 and at most {LARGEST_TOLERANCE_MM} mm"
