"""What a site sets for itself: its own names of ROIs, and its own tolerances. One TOML file, named by a setting.

    [names]                      # ROI name = OAR; "" for a name that is never an OAR
    "Ohrspeichel links" = "Parotid_L"
    "Cord old" = ""

    [tolerances_mm]              # OAR = tolerance of surface DSC in mm
    Parotid_L = 3.0

The file is read and checked when a process starts: a name that is misspelt in it would be a wrong number later.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from oarlock.errors import SiteFileInvalid
from oarlock.organs.catalogue import BY_NAME, OAR
from oarlock.organs.roi_names import known_names

LARGEST_TOLERANCE_MM: Final = 20.0
LARGEST_FILE_BYTES: Final = 1_000_000

_TABLES: Final = ("names", "tolerances_mm")


@dataclass(frozen=True)
class Site:
    """A site's own choices; without a file there are none.

    :param names: ROI name to the TG-263 name of an OAR of this house, or to "" for a name that is never an OAR.
    :param tolerances_mm: in place of the paper's, in mm.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    tolerances_mm: Mapping[OAR, float] = field(default_factory=dict)


def read_site(path: Path) -> Site:
    """Read and check a site's file.

    :raises SiteFileInvalid: it cannot be read, is not TOML, or says something that has no meaning here.
    """
    tables = _tables(path)
    if strange := sorted(set(tables) - set(_TABLES)):
        raise SiteFileInvalid(reason=f"it has no meaning for {', '.join(strange)}; it may hold {' and '.join(_TABLES)}")
    return Site(_names(tables.get("names", {})), _tolerances_mm(tables.get("tolerances_mm", {})))


def _tables(path: Path) -> dict[str, Any]:
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


def _names(table: Any) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(oar, str) for oar in table.values()):
        raise SiteFileInvalid(reason='[names] must say ROI name = OAR, both in quotes, or = "" for a name that is never an OAR')
    try:
        known_names(table)
    except ValueError as error:
        raise SiteFileInvalid(reason=f"in [names], {error}") from error
    return table


def _tolerances_mm(table: Any) -> dict[OAR, float]:
    if not isinstance(table, dict):
        raise SiteFileInvalid(reason="[tolerances_mm] must say OAR = number")
    for name, value in table.items():
        if name not in BY_NAME:
            raise SiteFileInvalid(reason=f"in [tolerances_mm], {name} is not an OAR of this house")
        if not _is_tolerance(value):
            raise SiteFileInvalid(reason=f"in [tolerances_mm], {name} must be above 0 and at most {LARGEST_TOLERANCE_MM} mm")
    return {BY_NAME[name]: float(value) for name, value in table.items()}


def _is_tolerance(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 < value <= LARGEST_TOLERANCE_MM
