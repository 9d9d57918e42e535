"""Sites: what each of several sites on one server sets for itself.

A folder with a file for each: what stands in ``north.toml`` counts for the keys and jobs of the site ``north``, in place of the
server's settings. It says what a site's file says (:mod:`oarlock.qa.site_file`), and before its tables:

    profile = "monaco"           # of jobs where neither they nor their key name one; a profile lists the organs that are written
    keep_input = "7d"            # for jobs whose key does not say; "never" is for the server's settings alone
    keep_results = "90d"
    rate_per_minute = 300        # most calls a minute of all keys of the site, in each service process
    share = 2                    # of the queue: twice as many jobs as those of another site before one of that is taken

The files are read and checked when a process starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from oarlock.errors import SiteFileInvalid
from oarlock.qa.site_file import Site, read_tables, site_of
from oarlock.scopes import NAME
from oarlock.store.retention import NO_OVERRIDE, Retention, to_seconds

LARGEST_SHARE: Final = 10

_Seconds = Annotated[int, BeforeValidator(lambda value: to_seconds(value if isinstance(value, str) else ""))]


@dataclass(frozen=True, slots=True)
class SiteRules:
    """What counts for the keys and jobs of one site.

    :ivar file: its names, tolerances and action levels.
    :ivar profile: None for the server's.
    :ivar retention: what is None in it is left to the server's settings.
    :ivar rate_per_minute: None for the server's.
    :ivar share: how many times as many of its jobs as of another site's go before one of that.
    """

    file: Site
    profile: str | None = None
    retention: Retention = NO_OVERRIDE
    rate_per_minute: int | None = None
    share: int = 1


class _Rules(BaseModel):
    """The keys of a site's rules as they may be written."""

    model_config = ConfigDict(extra="ignore")

    profile: StrictStr | None = None
    keep_input: _Seconds | None = None
    keep_results: _Seconds | None = None
    rate_per_minute: Annotated[StrictInt, Field(ge=0)] | None = None
    share: Annotated[StrictInt, Field(ge=1, le=LARGEST_SHARE)] = 1


_SAYS: Final = {
    "profile": "profile must be a name in quotes",
    "keep_input": 'keep_input must be a duration in quotes, such as "7d"',
    "keep_results": 'keep_results must be a duration in quotes, such as "90d"',
    "rate_per_minute": "rate_per_minute must be a number, 0 for no limit",
    "share": f"share must be a number from 1 to {LARGEST_SHARE}",
}


def read_sites(folder: Path) -> Mapping[str, SiteRules]:
    """The rules of every site with a file, by its name.

    :raises SiteFileInvalid: if the folder or a file cannot be used; its sentence names the file.
    """
    if not folder.is_dir():
        raise SiteFileInvalid(reason=f"there is no folder {folder}")
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def _read(path: Path) -> SiteRules:
    if not NAME.fullmatch(path.stem):
        raise SiteFileInvalid(reason=f"{path.name} is not named after a site")
    try:
        tables = read_tables(path)
        rules = _Rules.model_validate(tables)
        file = site_of({name: value for name, value in tables.items() if name not in _Rules.model_fields})
    except ValidationError as error:
        raise SiteFileInvalid(reason=f"in {path.name}, {_SAYS[str(error.errors()[0]['loc'][0])]}") from error
    except SiteFileInvalid as error:
        raise SiteFileInvalid(reason=f"in {path.name}, {error.reason}") from error
    retention = Retention(rules.keep_input, rules.keep_results)
    return SiteRules(file, rules.profile, retention, rules.rate_per_minute, rules.share)


def shares_of(rules: Mapping[str, SiteRules]) -> Mapping[str, int]:
    """The share of each site that has more than one."""
    return {site: one.share for site, one in rules.items() if one.share > 1}
