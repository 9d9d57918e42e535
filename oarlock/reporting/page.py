"""The report as one HTML document.

It needs nothing from outside: for a browser, and for the PDF.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from oarlock import __version__
from oarlock.organs.catalogue import BY_NAME
from oarlock.pictures.layout import volume_text
from oarlock.reporting.contents import Contents, pictures_of, without_name

POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content-Security-Policy of the page."""

_WORST: Final = ("red", "amber", "green")


@cache
def environment() -> Environment:
    """The templates of this package, everything that is put into them escaped."""
    environment = Environment(
        loader=PackageLoader("oarlock.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "day": _moment, "volume": volume_text, "share": _share, "ml": _millilitres}
    return environment


def to_html(contents: Contents) -> str:
    """The report as HTML. Everything that a sender wrote is escaped."""
    report = contents.report
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            made=report.get("made"),
            drawn_by=contents.rendering.model,
            subject=contents.subject,
            organs=_organs(contents),
            scored_by=_newest(contents),
            counts={level: sum(organ["verdict"] == level for organ in report["organs"]) for level in _WORST},
            pictures=pictures_of(contents),
            warnings=contents.warnings,
            description=contents.model_description,
            limits=contents.model_limits,
            version=__version__,
        )
    )


def _organs(contents: Contents) -> list[dict[str, Any]]:
    """One line an organ, the reds first: verdict, volume, and the scores of the newest comparison that counts."""
    rendering, report = contents.rendering, contents.report
    volumes = {oar.name: volume for oar, volume in zip(rendering.oars, rendering.millilitres().tolist(), strict=True)}
    newest = _newest(contents)
    scores = {row["oar"]: row for row in newest["oars"]} if newest else {}
    lines = [
        {
            **organ,
            "reason": without_name(organ["reason"], organ["oar"]),
            "colour": "#{:02x}{:02x}{:02x}".format(*BY_NAME[organ["oar"]].colour),
            "volume": volumes.get(organ["oar"], 0.0),
            "score": scores.get(organ["oar"]),
        }
        for organ in report["organs"]
    ]
    return sorted(lines, key=lambda line: _WORST.index(line["verdict"]))


def _newest(contents: Contents) -> Mapping[str, Any] | None:
    """The newest comparison that counts; None without any."""
    current = [one for one in contents.report["comparisons"] if not one.get("superseded")]
    return current[-1] if current else None


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _millilitres(value: float) -> str:
    """A volume without its unit."""
    return volume_text(value).removesuffix(" ml") if value > 0 else "0"


def _share(value: float | None) -> str:
    """A length of a bar, for CSS."""
    return f"{100 * (value or 0.0):.1f}%"


def _moment(value: object) -> str:
    """A time as people write it, in UTC; a dash for none."""
    if value is None:
        return "–"
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return f"{found:%Y-%m-%d %H:%M} UTC"
