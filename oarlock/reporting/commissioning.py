"""The report of a commissioning as one HTML document."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from oarlock import __version__
from oarlock.reporting.page import environment

PICTURES: Final = 9


def to_html(summary: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]], failed: Sequence[str]) -> str:
    """Organ by organ: scores, intervals, proposed levels, pictures of failures.

    :param summary: model, patients, and the entries of :func:`oarlock.commissioning.summary.summarise_cases`.
    :param pictures: of all patients, each with its score; of an organ the one with the lowest is shown.
    :param failed: why patients were left out.
    """
    first: dict[str, Mapping[str, Any]] = {}
    for picture in sorted(pictures, key=lambda one: one["score"]):
        first.setdefault(picture["oar"], picture)
    shown = list(first.values())[:PICTURES]
    template = environment().get_template("commissioning.html.j2")
    return template.render(summary=summary, pictures=shown, failed=failed, version=__version__)
