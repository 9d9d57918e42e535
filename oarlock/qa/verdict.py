"""Verdict: what all findings on one organ come to.

The strongest reason comes first; and there is one verdict for the whole set.

Several findings on one organ are seldom several faults: an optic nerve that is too small is also unlike its twin, flat at its
ends and out of place. So a person is shown one line an organ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oarlock.organs.catalogue import OAR
from oarlock.qa.checks.finding import Finding, Level, Slices

STRONGEST: Final = (
    "organ.empty",
    "organ.skin",
    "scan.cut_at_side",
    "organ.laterality",
    "organ.order",
    "organ.volume",
    "organ.incomplete",
    "organ.gap",
    "organ.density",
    "organ.position",
    "organ.mirror",
    "organ.flat_face",
    "organ.half",
    "organ.lung_tops",
    "organ.islands",
    "organ.not_inside",
    "organs.overlap",
    "organ.symmetry",
    "organ.delivered",
    "organ.certainty",
    "scan.cut_at_end",
    "organ.plausible",
)
"""Of findings of one level, what explains the others comes before what it explains."""

_WORST: Final = (Level.RED, Level.AMBER, Level.GREEN)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the findings on one organ come to.

    :param level: the worst of them.
    :param code, reason, slices: of the strongest one.
    :param codes: of all others that are not green, the strongest first.
    """

    oar: str
    level: Level
    code: str
    reason: str
    codes: tuple[str, ...] = ()
    slices: Slices | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``organs``."""
        return {
            "oar": self.oar,
            "verdict": self.level.value,
            "code": self.code,
            "reason": self.reason,
            "other_codes": list(self.codes),
            "slices": None if self.slices is None else self.slices.to_json(),
        }


def verdicts(findings: Iterable[Finding], oars: Sequence[OAR]) -> tuple[Verdict, ...]:
    """One verdict for each organ that has a finding.

    In the order of ``oars``.
    """
    by_oar: dict[str, list[Finding]] = {}
    for finding in findings:
        by_oar.setdefault(finding.oar or "", []).append(finding)
    return tuple(_verdict(oar.name, by_oar[oar.name]) for oar in oars if oar.name in by_oar)


def _verdict(oar: str, findings: Sequence[Finding]) -> Verdict:
    first, *others = sorted(findings, key=lambda one: (_WORST.index(one.level), STRONGEST.index(one.code)))
    told = dict.fromkeys(one.code for one in others if one.level is not Level.GREEN and one.code != first.code)
    return Verdict(oar, first.level, first.code, first.reason, tuple(told), first.slices)


def verdict_of_set(found: Iterable[Verdict]) -> Level:
    """The worst verdict of any organ; green without organs."""
    levels = {one.level for one in found}
    return next((level for level in _WORST if level in levels), Level.GREEN)
