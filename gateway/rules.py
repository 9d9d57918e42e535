"""Rules: what happens to a series.

From what it says of itself, and who sent it where. Values in, values out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.configuration import SENDER, Configuration, Kind, Result, Rule
from gateway.instances import Texts
from oarlock.ct.derived import derived_kinds

_PHASE: Final = re.compile(r"\b\d{1,3} ?%|\bPHASE ?\d|\b4D ?CT\b.*\b\d{1,3}\b|\bGATED\b|\bRESP\w* \d{1,3}\b", re.IGNORECASE)
_METAL: Final = re.compile(r"\bi?MAR\b|\bO-?MAR\b|\bSmart ?MAR\b|\bSEMAR\b|\bMETAL\b", re.IGNORECASE)
_SCOUT: Final = re.compile(r"\bSCOUT|\bTOPO(GRAM)?\b|\bLOCALI[SZ]ER\b|\bSURVIEW\b|\bSCANOGRAM\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sent:
    """Who sent a series, and as which AE title they called us."""

    calling: str
    called: str


@dataclass(frozen=True, slots=True)
class Route:
    """What happens to a series.

    :ivar rule: name of the rule that decided; empty where none did.
    :ivar ignored: why it is left alone; empty where it is contoured.
    :ivar places: names of peers, servers and folders that the results go to.
    :ivar for_qa: whether it was fetched to be compared with its approved contours, and is delivered nowhere.
    :ivar keep_s: seconds from the last delivery until the job is purged from the service; None leaves that to the service.
    """

    rule: str = ""
    ignored: str = ""
    model: str | None = None
    profile: str | None = None
    priority: str = "normal"
    keep_s: int | None = None
    places: tuple[str, ...] = ()
    results: tuple[Result, ...] = ("rtstruct",)
    for_qa: bool = False


def kind_of(texts: Texts) -> Kind | None:
    """What a series is that is usually not contoured.

    None for a plain one.
    """
    described = f"{texts.series_description} {texts.protocol_name}"
    if "LOCALIZER" in texts.image_types or _SCOUT.search(texts.series_description):
        return "scout"
    if "a cone beam CT" in derived_kinds([*texts.image_types, texts.series_description], device=texts.device):
        return "cone beam"
    if _METAL.search(texts.series_description):
        return "metal"
    return "phase" if _PHASE.search(described) else None


def route(texts: Texts, sent: Sent, configuration: Configuration) -> Route:
    """What the first rule that holds says.

    Without any rule in the file every plain series is contoured and sent back.
    """
    kind = kind_of(texts)
    rules = configuration.rule or [Rule(name="every series")]
    for rule in rules:
        if any(unmet(rule, texts, sent)):
            continue
        if rule.ignore:
            return Route(rule.name, f"the rule {rule.name!r} says so")
        if kind in configuration.leave_alone and kind not in rule.takes:
            return Route(rule.name, f"it is a {_WORDS[kind]}")
        return _route(rule, sent, configuration)
    return Route(ignored="no rule is meant for it")


_WORDS: Final[dict[Kind, str]] = {
    "scout": "scout",
    "phase": "phase of a 4D scan",
    "metal": "copy with reduced metal artefacts",
    "cone beam": "cone beam CT",
}


def _route(rule: Rule, sent: Sent, configuration: Configuration) -> Route:
    places = []
    for name in rule.send:
        if name == SENDER:
            peer, watch = configuration.peer_titled(sent.calling), configuration.watch_named(sent.calling)
            places += [watch.name] if watch is not None else [peer.name] if peer is not None and peer.listens else []
        else:
            places.append(name)
    results = tuple(dict.fromkeys(rule.results))
    unique = tuple(dict.fromkeys(places))
    return Route(rule.name, "", rule.model, rule.profile, rule.priority, rule.keep, unique, results)


def unmet(rule: Rule, texts: Texts, sent: Sent) -> Iterator[str]:
    """The conditions of a rule that a series fails, in words."""
    for name, wanted, found in (("called", rule.called, sent.called), ("calling", rule.calling, sent.calling)):
        if wanted and found not in wanted:
            yield f"{name} is not {' or '.join(wanted)}"
    for name in ("study_description", "series_description", "protocol_name", "body_part", "manufacturer"):
        pattern = getattr(rule, name)
        if pattern is not None and not re.search(pattern, getattr(texts, name), re.IGNORECASE):
            yield f"{name} does not hold {pattern!r}"
    if rule.thickness_mm is not None:
        low, high = rule.thickness_mm.min, rule.thickness_mm.max
        if texts.thickness_mm is None or not low <= texts.thickness_mm <= high:
            yield f"thickness_mm is not from {low:g} to {high:g}"


def in_words(texts: Texts, sent: Sent, configuration: Configuration) -> str:
    """What would happen to a series, in several lines.

    They say why no earlier rule was taken.
    """
    lines = []
    for rule in configuration.rule:
        missing = list(unmet(rule, texts, sent))
        if not missing:
            break
        lines.append(f"rule {rule.name!r} does not hold: {'; '.join(missing)}")
    chosen = route(texts, sent, configuration)
    if chosen.ignored:
        return "\n".join([*lines, f"left alone: {chosen.ignored}"])
    lines.append(f"contoured by the rule {chosen.rule!r}")
    lines.append(
        f"model {chosen.model or 'of the service'}, profile {chosen.profile or 'of the key'}, priority {chosen.priority}"
    )
    home = ", ".join(chosen.places) or "nowhere (the sender is not a peer with host and port): fetch them from the service"
    lines.append(f"{', '.join(chosen.results)} sent to {home}")
    if chosen.keep_s is not None:
        lines.append(f"purged from the service {chosen.keep_s} s after the last delivery")
    return "\n".join(lines)
