"""Which ROI of somebody else's RTSTRUCT is which OAR.

A name is cut into words ("LtParotid", "PAROTID_L" and "parotis li." into two each), and it is an organ only if every word is
understood: words for the organ, and for a paired organ one side. A single word more ("Brainstem_PRV", "Cord+5mm",
"Parotid_L-PTV", "L Cochlea opt", "L parotid 2") makes it something else, which is left out and listed. So a name that is not
known costs a row in the report; a name that is guessed would cost a wrong number. Left and right are only ever read from words
that mean a side.

Codes of the RT ROI Identification Code Sequence (PS3.3 A.19, SNOMED CT or FMA, as TG-263 lists them) settle a name that says
nothing of the organ ("Structure 7"); a contradiction between the two makes the ROI ambiguous. A modifier that is not a side, or a
name that says more than the organ ("Brainstem_Core"), makes it a part, whatever its code is. A site adds its own names by
``site_names``.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, Protocol, TypeVar

from oarlock.organs.catalogue import BY_NAME, LATERALITY_CODES, OAR, OARS, Laterality


class NamedROI(Protocol):
    """What is needed of an entry of an RTSTRUCT."""

    @property
    def number(self) -> int:
        """ROI Number."""

    @property
    def name(self) -> str:
        """ROI Name."""

    @property
    def codes(self) -> tuple[Any, ...]:
        """(value, scheme designator, meaning) of each identification code, modifiers among them."""


R = TypeVar("R", bound=NamedROI)


@dataclass(frozen=True, slots=True)
class Matches(Generic[R]):
    """The outcome of :func:`match_rois`.

    :param matched: at most one ROI for each OAR.
    :param unmatched: names of the ROIs that are not a supported OAR.
    :param ambiguous: names of the ROIs left out because several claim one OAR, or because name and code contradict each other.
    :param contested: the OARs that several ROIs claim, with the names of these.
    """

    matched: Mapping[OAR, R]
    unmatched: tuple[str, ...]
    ambiguous: tuple[str, ...]
    contested: Mapping[OAR, tuple[str, ...]] = field(default_factory=dict)


def match_rois(rois: Sequence[R], *, site_names: Mapping[str, str] | None = None) -> Matches[R]:
    """Match the ROIs of one structure set to the OARs.

    Of several ROIs that claim one OAR, one that is empty gives way to those that are not, and one that claims it by its code
    alone to those whose name says so; what is left is matched if it is one ROI, and ambiguous if it is more.

    :param rois: with ``number``, ``name`` and ``codes``; an ROI with an empty ``contours`` is empty.
    :param site_names: a site's own spellings, each with the TG-263 name of a supported OAR, or with "" for a name that is
        never an OAR; case and outer blanks do not matter. They come before everything else.
    :raises ValueError: as :func:`known_names` does.
    """
    known = known_names(site_names or {})
    claims: dict[OAR, list[R]] = {}
    unmatched: list[str] = []
    ambiguous: list[str] = []
    for roi in rois:
        found = known[_key(roi.name)] if _key(roi.name) in known else _claimed(roi)
        if isinstance(found, OAR):
            claims.setdefault(found, []).append(roi)
        else:
            (ambiguous if found is _CONTRADICTION else unmatched).append(roi.name)
    matched: dict[OAR, R] = {}
    contested: dict[OAR, tuple[str, ...]] = {}
    for oar in OARS:
        strongest = _strongest(claims.get(oar, []), known)
        unmatched += [roi.name for roi in claims.get(oar, []) if roi not in strongest]
        if len(strongest) == 1:
            matched[oar] = strongest[0]
        elif strongest:
            contested[oar] = tuple(roi.name for roi in strongest)
    ambiguous += [name for names in contested.values() for name in names]
    return Matches(matched, tuple(unmatched), tuple(ambiguous), contested)


def _strongest(claims: list[R], known: Mapping[str, OAR | None]) -> list[R]:
    """Of the ROIs that claim one OAR, those that no other is better than."""
    drawn = [roi for roi in claims if getattr(roi, "contours", True)] or claims
    named = [roi for roi in drawn if _key(roi.name) in known or oar_of_name(roi.name) is not None]
    return named or drawn


def oar_of_name(name: str) -> OAR | None:
    """The OAR that a name means, by its words; None if unknown.

    None if it means no OAR, or is not understood.
    """
    if set(name) & _DERIVED_SIGNS:
        return None
    for words in _readings(name):
        sides = {_SIDES[word] for word in words if word in _SIDES}
        organ = _ORGANS.get(frozenset(word for word in words if word not in _SIDES))
        if organ is not None and not _is_repeated(words):
            return _with_side(organ, sides)
        if (french := _french(words)) is not None:
            return french
    return None


def _french(words: Sequence[str]) -> OAR | None:
    """The OAR of French words, the letter of a side beside them ("Parotide G") or behind one of them ("parotideg")."""
    apart = [part for word in words for part in _without_letter(word)]
    named = [word for word in apart if word not in _FRENCH_SIDES]
    organ = _FRENCH.get(frozenset(named))
    if organ is None or len(named) != len(set(named)):
        return None
    return _with_side(organ, {_FRENCH_SIDES[word] for word in apart if word in _FRENCH_SIDES})


def _without_letter(word: str) -> tuple[str, ...]:
    return (word[:-1], word[-1]) if word[:-1] in _FRENCH_LONG and word[-1] in "gd" else (word,)


# ── codes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_CONTRADICTION: Final = object()

_SNOMED_SCHEMES: Final = frozenset({"SCT", "SNOMED-CT", "SNM3", "2.16.840.1.113883.6.96"})

_SNOMED: Final = {oar.snomed_code: oar.name.removesuffix("_L").removesuffix("_R") for oar in OARS} | {
    # What the published map of TG-263 (HL7 CodeX Radiation Therapy, "TG263 mapping") uses in place of the standard's code:
    "385296007": "Glnd_Submand",  # Submandibular salivary gland structure
    "15926001": "Brainstem",  # Brainstem structure
    "91609006": "Bone_Mandible",
}

_FMA: Final = {
    "50801": "Brain",
    "79876": "Brainstem",
    "60203": "Cochlea_L",
    "60202": "Cochlea_R",
    "58243": "Lens_L",
    "58242": "Lens_R",
    "7310": "Lung_L",
    "7309": "Lung_R",
    "52748": "Bone_Mandible",
    "50878": "OpticNrv_L",
    "50875": "OpticNrv_R",
    "12515": "Eye_L",
    "12514": "Eye_R",
    "59798": "Parotid_L",
    "59797": "Parotid_R",
    "7647": "SpinalCord",
    "59803": "Glnd_Submand_L",
    "59802": "Glnd_Submand_R",
}
"""Foundational Model of Anatomy identifiers; FMA names each side of the body on its own."""


_MISTAKES: Final = {("OpticNrv_R", "18234004"): Laterality.LEFT}
"""Where the published map itself gives a TG-263 name the modifier of the other side; the name is right."""


def _claimed(roi: NamedROI) -> object:
    """The OAR that an ROI claims to be, None, or the contradiction of its name and its code."""
    if _is_derived(roi.name) or _is_part(roi.codes):
        return None
    by_name = oar_of_name(roi.name)
    organ, sides = _organ_of_codes(roi.codes)
    if by_name is not None and sides == {_MISTAKES.get((roi.name.strip(), by_name.snomed_code))}:
        return by_name
    by_code = None if organ is None else _with_side(organ, sides or {_SIDES[word] for word in _words(roi.name) if word in _SIDES})
    if by_name is None:
        return None if organ is None or _tells_of(roi.name, organ) else by_code
    if organ is None:
        return by_name
    # A code without a side goes with either side of its organ.
    same = by_code == by_name if by_code is not None else not sides and by_name.name.startswith(organ)
    return by_name if same else _CONTRADICTION


def _organ_of_codes(codes: Iterable[Any]) -> tuple[str | None, set[Laterality]]:
    """The one organ that codes name, without its side where the code has none; and the sides that modifiers name."""
    organs: set[str] = set()
    sides: set[Laterality] = set()
    for value, scheme, *_ in codes:
        if scheme in _SNOMED_SCHEMES:
            organs |= {_SNOMED[value]} if value in _SNOMED else set()
            sides |= {side for side, code in LATERALITY_CODES.items() if code[0] == value}
        elif scheme == "FMA":
            organs |= {_FMA[value.upper().removeprefix("FMA")]} if value.upper().removeprefix("FMA") in _FMA else set()
    unsided = {organ.removesuffix("_L").removesuffix("_R") for organ in organs}
    if len(unsided) != 1:
        return None, sides
    sided = organs - unsided
    return (sided.pop() if len(sided) == 1 else unsided.pop()), sides


def _is_part(codes: Iterable[Any]) -> bool:
    """Whether a modifier says that an ROI is a part of its organ, or both sides of it.

    Of the codes of SNOMED CT beside an organ's only a side leaves it the whole organ: Core, Surface, Upper … do not.
    """
    values = {value for value, scheme, *_ in codes if scheme in _SNOMED_SCHEMES}
    sides = {code[0] for code in LATERALITY_CODES.values()}
    return bool(values & _SNOMED.keys()) and bool(values - _SNOMED.keys() - sides or sides <= values)


def _tells_of(name: str, organ: str) -> bool:
    """Whether a name that is not understood holds the organ's word: then it says more than the organ, and is a part or a copy."""
    words = {word for phrases in _SPELLINGS[organ.removesuffix("_L").removesuffix("_R")] for phrase in phrases for word in phrase}
    told = "".join(_words(name))
    return any(len(word) >= 4 and word not in _GLAND.split("|") and word in told for word in words)


def _with_side(organ: str, sides: set[Laterality]) -> OAR | None:
    if organ in BY_NAME:
        return None if sides else BY_NAME[organ]
    if len(sides) != 1:
        return None
    return BY_NAME[f"{organ}_{'L' if sides == {Laterality.LEFT} else 'R'}"]


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

Phrase = frozenset[str]
"""The words of a name, in any order."""


def _split(*lines: str) -> Phrase:
    return frozenset(word for line in lines for word in line.split())


def _phrases(*alternatives: str) -> frozenset[Phrase]:
    """Every way to choose one of each of the alternatives, which are separated by bars."""
    phrases = {Phrase()}
    for words in alternatives:
        phrases = {phrase | Phrase(word.split()) for phrase in phrases for word in words.split("|")}
    return frozenset(phrases)


_DERIVED_SIGNS: Final = frozenset("+~^!*#%&<>=|?")
"""Margins, partial structures (TG-263: ~), qualifiers (^), expressions of planning systems."""

_DERIVED_WORDS: Final = _split(
    "prv ptv ctv gtv itv igtv opt opti optim ring shell sub avoid exp expansion margin mm cm gy cgy hot cold dose iso block",
    "core surf surface edge low high deep superficial upper lower ant post anterior posterior lat med lateral medial half part",
    "lobe mri mr mrt pet cbct ns ai auto atlas dl draft final new rev fusion def deformed prop copied ref dosimetry eval",
    "buffer minus ohne sans without aus in out old alt copy test tmp temp dummy help hilfs total sum both beide bilateral",
)

_SIDES: Final = dict.fromkeys(
    _split(
        "l lt lft left li lks lk links linke linker linkes lnks sin sinister sinistra sinistrum sinistro sx sn",
        "izq izda izquierda izquierdo gauche gche esq esquerda esquerdo",
    ),
    Laterality.LEFT,
) | dict.fromkeys(
    _split(
        "r rt rgt right re rts rechts rechte rechter rechtes rchts dex dext dexter dextra dextrum destra destro dx",
        "dcha dcho der derecha derecho droit droite drt dte dir direita direito",
    ),
    Laterality.RIGHT,
)

_FRENCH_SIDES: Final = {**_SIDES, "g": Laterality.LEFT, "d": Laterality.RIGHT}
"""One letter for a side in French is only read beside a French word for the organ: elsewhere G is a gland and D a dose."""

_GLAND: Final = "|gland|glnd|gl|gld|glandula|druese|druse|drs|ghiandola|glande|salivary gland"

_SPELLINGS: Final[dict[str, tuple[frozenset[Phrase], ...]]] = {
    "Brain": (
        _phrases(
            "brain|hirn|gehirn|encephalon|encephalo|encefalo|cerveau|encephale|cerebro|hersenen|cervello",
            "|whole|total|ganz",
        ),
    ),
    "Brainstem": (
        _phrases("brainstem|brain stem|bstem|b stem|brnstem|brainstm|brain stm|hirnstamm|stammhirn|hersenstam"),
        _phrases("tronc|tronc cerebral|tronccerebral|tr cerebral|tronco|tronco encefalico|tronco encefalo|tronco del encefalo"),
        _phrases("tronco cerebral|tronco cerebrale|tallo cerebral"),
        _phrases("truncus encephali|truncus cerebri"),
    ),
    "Cochlea": (_phrases("cochlea|cochlear|coclea|coch|cochlee|schnecke|hoerschnecke|horschnecke|koklea"),),
    "Glnd_Lacrimal": (
        _phrases("lacrimal|lachrymal|lacrimalis|lacrim|lacr|lacrymal|lacrymale|lacrimale|lagrimal|traenen|tranen", _GLAND),
        _phrases("traenendruese|tranendruse|traanklier"),
    ),
    "Lens": (_phrases("lens|lense|linse|augenlinse|cristallin|cristalino|cristallino|ooglens|lens eye"),),
    "Lung": (_phrases("lung|lunge|long|lungenfluegel|lungenflugel|pulmo|pulmon|poumon|polmone|pulmao"),),
    "Bone_Mandible": (
        _phrases(
            "mandible|mandibula|mandibel|mandib|mand|mandibule|mandibola|mandibular|unterkiefer|jaw|lower jaw",
            "|bone|knochen|os|ganz|whole",
        ),
        _phrases("onderkaak|maxilar inferior"),
    ),
    "OpticNrv": (
        _phrases("optic|opt|op|optical|opticus|optikus|opticum|o", "nerve|nrv|nerv|nv|n|nervus"),
        _phrases("opticnrv|opticnerve|optnerve|optnrv|opticnerv|opticn|nopt|nopticus|opticus|optikus|sehnerv|on"),
        _phrases("nerf optique|n optique|nervio optico|nervo ottico|nervo optico|oogzenuw"),
    ),
    "Eye": (
        _phrases("eye|eyeball|eye ball|globe|eye globe|orbit|auge|augapfel|bulbus|bulbus oculi|auge bulbus|oculus|oog"),
        _phrases("oeil|globe oculaire|ojo|globo ocular|occhio|bulbo oculare|olho"),
    ),
    "Parotid": (
        _phrases("parotid|parotis|parot|parotide|parotida|parotideus|parotidea|ohrspeichel", _GLAND),
        _phrases("ohrspeicheldruese|ohrspeicheldruse"),
    ),
    "SpinalCanal": (
        _phrases("spinalcanal|spinal canal|spinalcan|vertebral canal|spinalkanal|spinal kanal|wirbelkanal|wervelkanaal"),
        _phrases("canalis spinalis|canalis vertebralis|canal vertebral|canal rachidien|canal medullaire|canal medular"),
        _phrases("canal raquideo|canale spinale|canale midollare|canale vertebrale"),
    ),
    "SpinalCord": (
        _phrases("cord|spinalcord|spinal cord|spinecord|spine cord|spcord|sp cord|sc|myelon|myelum|ruckenmark|rueckenmark"),
        _phrases("medulla spinalis|medula spinalis|med spinalis|moelle|moelle epiniere|moelle spinale|medula|medula espinal"),
        _phrases("midollo|midollo spinale|ruggenmerg"),
    ),
    "Glnd_Submand": (
        _phrases("submandibular|submandibularis|submand|submandib|submandi|subman|submandibula|submadibular|submnd", _GLAND),
        _phrases("sub mandibular|sub mand|submaxillary|submax|submaxillar|submaxillaris|submandblr|submandibulair", _GLAND),
        _phrases("submandibulaer|submandibulaere|submandibularspeichel|unterkieferspeichel|submandibulaire", _GLAND),
        _phrases("sous maxillaire|sousmaxillaire|sous mandibulaire|sottomandibolare|submaxilar", _GLAND),
        _phrases("smg|smgl|smgland|sm gland|submandibulardruese|submandibulardruse|unterkieferspeicheldruese"),
        _phrases("unterkieferspeicheldruse|unterkieferdruese|unterkieferdruse"),
    ),
}
"""What an organ may be called without its side, lower case and without accents; the gland's word is free. Orbit is the paper's
name of the globe; the German Orbita is the bony socket, which is not a supported OAR."""

_FRENCH_SPELLINGS: Final[dict[str, frozenset[Phrase]]] = {
    "Cochlea": _phrases("cochlee"),
    "Glnd_Lacrimal": _phrases("lacrymale", "|glande"),
    "Lens": _phrases("cristallin"),
    "Lung": _phrases("poumon"),
    "OpticNrv": _phrases("nerf optique|n optique|no"),
    "Eye": _phrases("oeil|globe oculaire"),
    "Parotid": _phrases("parotide", "|glande"),
    "Glnd_Submand": _phrases("submandibulaire|sous maxillaire|sousmaxillaire|sous mandibulaire", "|glande"),
}

_ORGANS: Final = {phrase: organ for organ, groups in _SPELLINGS.items() for phrases in groups for phrase in phrases}
_FRENCH: Final = {phrase: organ for organ, phrases in _FRENCH_SPELLINGS.items() for phrase in phrases}

_FRENCH_LONG: Final = frozenset(word for phrase in _FRENCH for word in phrase if len(word) > 3)

_VOCABULARY: Final = frozenset(word for phrase in _ORGANS for word in phrase)
_NOT_GLUED: Final = frozenset({"orbital", "orbita", "lensl"})
"""Words of their own that look like an organ with the letter of a side behind it."""

_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def _words(name: str) -> list[str]:
    """The words of a name: apart at signs, digits and capitals; lower case, without accents."""
    return [_plain(part) for word in _WORD.findall(unicodedata.normalize("NFC", name)) for part in _CAMEL.split(word)]


def _plain(word: str) -> str:
    folded = unicodedata.normalize("NFKD", word.replace("œ", "oe").replace("Œ", "OE").casefold())
    return "".join(letter for letter in folded if not unicodedata.combining(letter))


@lru_cache(maxsize=4096)
def _readings(name: str) -> tuple[tuple[str, ...], ...]:
    """The ways to cut a name into words: at its capitals, not at them, and with the letter of a side taken off a known word."""
    camel = tuple(_words(name))
    plain = tuple(_plain(word) for word in _WORD.findall(unicodedata.normalize("NFC", name)))
    return camel, plain, tuple(part for word in plain for part in _unglued(word))


def _unglued(word: str) -> tuple[str, ...]:
    """A word such as "lcochlea", "parotidleft" or "spinalcord" as organ and side; itself if it is not glued from the two."""
    if word in _VOCABULARY or word in _SIDES or word in _NOT_GLUED:
        return (word,)
    for cut in range(1, len(word)):
        first, second = word[:cut], word[cut:]
        if (first in _SIDES and second in _LONG) or (second in _SIDES and first in _LONG):
            return first, second
    return (word,)


_LONG: Final = frozenset(word for word in _VOCABULARY if len(word) >= 3) - {"mand", "opt", "gland", "nerve"}
"""Words that are still themselves with a side glued to them; of shorter ones something else would come out."""


def _is_repeated(words: Sequence[str]) -> bool:
    """Whether an organ's word occurs twice: the sum of two, or something between them."""
    organ = [word for word in words if word not in _SIDES]
    return len(organ) != len(set(organ))


def _is_derived(name: str) -> bool:
    """Whether a name says that it is made from an organ: then no code makes it the organ."""
    if set(name) & _DERIVED_SIGNS:
        return True
    if oar_of_name(name) is not None:
        return False
    words = _words(name)
    return any(word in _DERIVED_WORDS or word.isdigit() for word in words) or any(
        word.startswith(target) or word.endswith(target) for word in words for target in ("ptv", "ctv", "gtv", "prv")
    )


def known_names(site_names: Mapping[str, str]) -> dict[str, OAR | None]:
    """A site's own spellings as they are compared with.

    Without case and outer blanks; None for a name that is never an OAR.

    :raises ValueError: if one names an organ that is not supported, is empty, or is said twice with different meanings.
    """
    unknown = sorted({oar for oar in site_names.values() if oar and oar not in BY_NAME})
    if unknown:
        raise ValueError(f"not a supported OAR: {', '.join(unknown)}")
    known: dict[str, OAR | None] = {}
    for name, oar in site_names.items():
        key, meaning = _key(name), BY_NAME[oar] if oar else None
        if not key or known.get(key, meaning) != meaning:
            raise ValueError(f"{name!r} is empty, or means two things")
        known[key] = meaning
    return known


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()
