"""One verdict an organ, its strongest reason first; and one for the set."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from oarlock.organs.catalogue import OARS
from oarlock.qa import checks
from oarlock.qa.checks.finding import Finding, Level, Slices
from oarlock.qa.verdict import STRONGEST, verdict_of_set, verdicts

RED, AMBER, GREEN = Level.RED, Level.AMBER, Level.GREEN


def finding(code: str, oar: str, level: Level) -> Finding:
    return Finding(code, oar, level, f"{oar}: {code}.")


def test_the_findings_on_one_organ_are_one_verdict_with_the_strongest_first() -> None:
    found = [
        finding("organ.certainty", "OpticNrv_L", RED),
        finding("organ.flat_face", "OpticNrv_L", RED),
        finding("organ.flat_face", "OpticNrv_L", RED),
        finding("scan.cut_at_end", "OpticNrv_L", GREEN),
        replace(finding("organ.volume", "OpticNrv_L", RED), slices=Slices(best=3, first=2, last=5)),
        finding("organ.laterality", "OpticNrv_L", AMBER),
        finding("organ.plausible", "Brain", GREEN),
    ]
    brain, nerve = verdicts(found, OARS)
    assert (brain.oar, brain.level, brain.codes) == ("Brain", GREEN, ())
    assert (nerve.level, nerve.code, nerve.reason) == (RED, "organ.volume", "OpticNrv_L: organ.volume.")
    assert nerve.codes == ("organ.flat_face", "organ.certainty", "organ.laterality")
    assert nerve.to_json() == {
        "oar": "OpticNrv_L",
        "verdict": "red",
        "code": "organ.volume",
        "reason": "OpticNrv_L: organ.volume.",
        "other_codes": ["organ.flat_face", "organ.certainty", "organ.laterality"],
        "slices": {"best": 4, "first": 3, "last": 6},
    }


@pytest.mark.parametrize(("levels"), list(itertools.product(Level, repeat=2)))
def test_a_set_is_as_bad_as_its_worst_organ(levels: tuple[Level, Level]) -> None:
    found = verdicts([finding("organ.volume", "Brain", levels[0]), finding("organ.volume", "Eye_L", levels[1])], OARS)
    expected = next(level for level in (RED, AMBER, GREEN) if level in levels)
    assert verdict_of_set(found) is expected


def test_a_set_without_organs_is_green() -> None:
    assert verdict_of_set(()) is GREEN


def test_every_code_of_a_check_has_its_place_among_the_reasons() -> None:
    sources = Path(checks.__file__).parent.glob("*.py")
    codes = {code for path in sources for code in re.findall(r'"((?:organs?|scan)\.[a-z_]+)"', path.read_text(encoding="utf-8"))}
    assert codes | {"organ.plausible"} == set(STRONGEST)
