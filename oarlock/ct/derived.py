"""Series that call themselves something else than a plain CT.

Spectral maps, projections, averages, cone beam, megavoltage.

Their values can look like Hounsfield units, and no physics tells them apart, so their own words count. Words that an operator
typed are read too; they are matched against a list and never repeated.

Sources: PS3.3 C.8.15.3.10 (multi-energy Image Type), C.8.16.1 (Image Type), C.8.2.1 (KVP), and what vendors write.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from oarlock.facts import Notice

MEGAVOLTAGE_KV: Final = 500.0
"""Diagnostic tubes end at 150 kV, and megavoltage begins at 1,000 kV."""

AVERAGE: Final = "an average of phases"

KINDS: Final[Mapping[str, str]] = {
    "a virtual monoenergetic image": r"VMI ?\d*|MONO ?\d*|MONOE|MONO\+|MONOPLUS|"
    r"MONOENERGETIC|MONOCHROMATIC|MONOCHROM|\d{2,3} ?KEV|KEV",
    "an iodine map": r"IODINE|IODIN|IODMAP|IOD MAP|I MAP|CONTRAST MAP|IODOVERLAY",
    "a virtual non-contrast image": r"VNC|VUE|VNCA|VNCAL|"
    r"VIRTUALNONCONTRAST|NONCONTRASTVIRTUAL|VIRTUAL NON ?CONTRAST|VIRTUAL (?:UNENHANCED|NATIVE)",
    "a map of one material": r"CALCIUM SUPPRESS\w*|CALCIUM MAP|MAT SPECIFIC|MAT REMOVED|MAT FRACTIONAL|"
    r"MAT MODIFIED|MAT VALUE BASED|URIC|WATER IODINE|WATER ?MAP",
    "a map of effective atomic numbers": r"EFF ATOMIC NUM|ZEFF|Z EFF|EFFECTIVE Z|Z EFFECTIVE|ATOMIC NUMBER",
    "a map of electron densities": r"ELECTRON ?DENSITY|ED MAP|RHO ?E|RHOZ|RHO",
    "an intensity projection": r"MIP|MINIP|MAXIP|MIN IP|MAX IP|AIP|AVEIP|AVE IP|MEAN ?IP|(?<!BACK )PROJECTION(?! DATA)",
    AVERAGE: r"AVERAGE|AVERAGED|AVG|AVE|MEAN|4D AVE",
    "a subtraction": r"SUBTRACTION|SUBTRACTED|SUBTRACT|DSA",
    "a perfusion map": r"PERFUSION|CBF|CBV|MTT|TMAX|TTP",
    "a synthetic CT": r"SYNTHETIC|SYNTHETIC ?CT|SYNTH ?CT|PSEUDO ?CT|SCT|MRCAT",
    "a cone beam CT": r"CBCT|KV ?CBCT|O ARM|CONE ?BEAM|CONEBEAM|VOLUMEVIEW",
    "a deformed CT": r"DEFORMED|DEFORMABLE|WARPED|DIR CT",
    "a megavoltage CT": r"MVCT|MV ?CBCT|MEGAVOLTAGE",
}
"""Kind and the words that mean it, in capitals, with blanks for all punctuation."""

_CONE_BEAM_DEVICE: Final = re.compile(r"\b(XVI|ON BOARD IMAGER|OBI|CBCT|CONE ?BEAM|HALCYON|O ARM|I CAT|NEWTOM)\b")
_WORDS: Final = {kind: re.compile(rf"\b({words})\b") for kind, words in KINDS.items()}
_PHASES: Final = re.compile(r"\b(PHASES?|4D|4D ?CT|RESP\w*|BREATH\w*|GATED|GATING|CINE)\b")
_BREAKS: Final = re.compile(r"[^A-Z0-9+]+")


def derived_kinds(
    texts: Iterable[str],
    *,
    derivations: Iterable[str] = (),
    device: str = "",
    kv: float | None = None,
    multi_energy: bool = False,
) -> list[str]:
    """What a series calls itself beside a plain CT.

    In words of :data:`KINDS` and a few more; empty if nothing.

    :param texts: values of Image Type, and descriptions of the series.
    :param derivations: Derivation Descriptions, which tell of means and averages of any kind: these count beside phases alone.
    :param device: manufacturer and model.
    """
    said, made = [_plain(text) for text in texts], [_plain(text) for text in derivations]
    of_phases = [text for text in made if _PHASES.search(text)]
    kinds = [
        kind
        for kind, words in _WORDS.items()
        if any(words.search(text) for text in (*said, *(of_phases if kind == AVERAGE else made)))
    ]
    if _CONE_BEAM_DEVICE.search(_plain(device)) and "a cone beam CT" not in kinds:
        kinds.append("a cone beam CT")
    if ("TOMOTHERAPY" in _plain(device) or (kv or 0) >= MEGAVOLTAGE_KV) and "a megavoltage CT" not in kinds:
        kinds.append("a megavoltage CT")
    return kinds or (["an image of a multi-energy acquisition"] if multi_energy else [])


def _plain(text: str) -> str:
    return _BREAKS.sub(" ", text.upper()).strip()


def derived_notice(kinds: Iterable[str]) -> list[Notice]:
    """The warning, if there is any kind."""
    named = " and ".join(kinds)
    if not named:
        return []
    detail = f"By its own words the series is {named}, not a plain CT, which is all that the model was trained on."
    return [Notice("series.derived_image", detail + " Check every contour.")]
