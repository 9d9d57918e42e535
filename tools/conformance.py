"""The tables of the conformance statement in docs/dicom.md, from the code.

python -m tools.conformance

They have the shape of a DICOM Conformance Statement (PS3.2): services, SOP classes with roles, transfer syntaxes, character sets.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from pydicom.charset import python_encoding
from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
)

from gateway.dimse.contexts import offered
from oarlock.ct.pixel_header import ENCAPSULATED, MAYBE_LOSSY, NATIVE
from oarlock.ct.sorting import CT_IMAGE, MULTI_FRAME_CT
from service.dicomweb import search, store
from service.dicomweb.query_routes import dicomweb
from service.dicomweb.stow_routes import stow
from tools import marked

PAGE: Final = Path(__file__).parents[1] / "docs" / "dicom.md"
NAME: Final = "conformance"

POSTED: Final = {CT_IMAGE, *MULTI_FRAME_CT, RTStructureSetStorage}
"""SOP classes that a post of a job uses."""

RETRIEVED: Final = {CT_IMAGE, *MULTI_FRAME_CT, RTStructureSetStorage, SegmentationStorage, EncapsulatedPDFStorage}
MADE: Final = frozenset({RTStructureSetStorage, SegmentationStorage, EncapsulatedPDFStorage})

WRITTEN_IN: Final = {
    ImplicitVRLittleEndian: "RTSTRUCT; CT images of a de-identified series",
    ExplicitVRLittleEndian: "segmentation; Encapsulated PDF; whatever a retrieval asks for in it",
}
CODE_EXTENSIONS: Final = "ISO 2022"


def tables() -> str:
    """All tables, each under its heading."""
    parts = (
        ("SOP classes", _sop_classes()),
        ("Transfer syntaxes", _transfer_syntaxes()),
        ("DICOMweb services", _services()),
        ("Keys of searches", _keys()),
        ("Failure reasons of a store", _failures()),
        ("Character sets", _character_sets()),
    )
    return "\n\n".join(f"#### {heading}\n\n{table}" for heading, table in parts)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sop_classes() -> str:
    roles: dict[str, list[str]] = {}
    for one in offered():
        roles.setdefault(str(one.sop_class), []).append(one.role)
    own = sorted(RETRIEVED | MADE | POSTED, key=lambda uid: UID(uid).name)
    every = [*own, *(uid for uid in roles if uid not in own)]
    yes = {True: "yes", False: ""}
    rows = [
        (
            UID(uid).name.removesuffix(" SOP Class"),
            f"`{uid}`",
            " and ".join(roles.get(uid, [])),
            yes[uid in POSTED],
            yes[uid in store.TAKEN],
            yes[uid in RETRIEVED],
            yes[UID(uid) in MADE],
        )
        for uid in every
    ]
    columns = ("SOP class", "UID", "DIMSE (gateway)", "posted over HTTP", "STOW-RS", "QIDO-RS, WADO-RS", "made by Oarlock")
    return _table(columns, rows)


def _transfer_syntaxes() -> str:
    uids = sorted((NATIVE | ENCAPSULATED) - {""}, key=lambda uid: [int(part) for part in uid.split(".")])
    rows = [
        (
            UID(uid).name,
            f"`{uid}`",
            "compressed" if uid in ENCAPSULATED else "native",
            "warning `series.lossy_compression`" if uid in MAYBE_LOSSY else "",
            WRITTEN_IN.get(UID(uid), ""),
        )
        for uid in uids
    ]
    return _table(("transfer syntax", "UID", "CT images are read", "may be lossy", "written"), rows)


def _services() -> str:
    service = {"POST": "STOW-RS"}
    rows = []
    for route in (*stow.routes, *dicomweb.routes):
        assert isinstance(route, APIRoute)
        if not route.include_in_schema:  # HEAD
            continue
        method = next(iter(route.methods or ()))
        kind = service.get(method) or ("QIDO-RS" if "Search" in (route.summary or "") else "WADO-RS")
        rows.append((kind, route.summary or "", f"`{method} {route.path}`", ", ".join(f"`{scope}`" for scope in _scopes(route))))
    return _table(("service", "transaction", "request", "scope"), rows)


def _scopes(route: APIRoute) -> Iterator[str]:
    for entry in route.dependencies:
        yield from SecurityScopes(list(getattr(entry, "scopes", None) or [])).scopes


def _keys() -> str:
    levels = ("studies", "series", "instances")
    every = search.KEYS["instances"]
    rows = [(keyword, _tag(keyword), _where(keyword, levels)) for keyword in every]
    beside = (search.STUDY_ANSWER, search.SERIES_ANSWER, search.INSTANCE_ANSWER)
    answered = "; ".join(f"{level}: {', '.join(attributes)}" for level, attributes in zip(levels, beside, strict=True))
    table = _table(("attribute", "tag", "matched in searches for"), rows)
    return f"{table}\n\nAnswered beside them, where there is a value: {answered}."


def _tag(keyword: str) -> str:
    digits = search.tag_text(keyword)
    return f"({digits[:4]},{digits[4:]})"


def _where(keyword: str, levels: Sequence[str]) -> str:
    return ", ".join(level for level in levels if keyword in search.KEYS[level])


def _failures() -> str:
    reasons = (
        (store.CLASS_NOT_SUPPORTED, "the SOP class is not taken"),
        (store.OUT_OF_RESOURCES, "there are more instances of the series than a post may have"),
        (store.WRONG_STUDY, "the instance is not of the study in the address"),
        (store.NOT_UNDERSTOOD, "not DICOM, damaged, without valid UIDs, or an RTSTRUCT that lists no or several series"),
    )
    return _table(("Failure Reason", "why"), [(f"{code:04X}", why) for code, why in reasons])


def _character_sets() -> str:
    terms = sorted(term for term in python_encoding if term)
    single = [f"`{term}`" for term in terms if not term.startswith(CODE_EXTENSIONS)]
    several = [f"`{term}`" for term in terms if term.startswith(CODE_EXTENSIONS)]
    rows = [("none: the default repertoire, which is ASCII", ""), (", ".join(single), ""), (", ".join(several), "yes")]
    return _table(("Specific Character Set", "with code extensions"), rows)


def main() -> int:
    """Write the tables into their page."""
    marked.write(PAGE, NAME, tables())
    return 0


if __name__ == "__main__":
    sys.exit(main())
