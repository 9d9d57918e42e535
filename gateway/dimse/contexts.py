"""What is offered on associations: SOP classes, transfer syntaxes, roles.

The conformance statement is made from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    SegmentationStorage,
)
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from gateway.instances import CT_CLASSES
from oarlock.ct.pixel_header import ENCAPSULATED, NATIVE

PLAIN: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""What we send in, and ask in: every application has to understand the second."""

UNCOMPRESSED: Final = (*PLAIN, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
IMAGES: Final = (*UNCOMPRESSED, *(UID(uid) for uid in sorted((NATIVE | ENCAPSULATED) - {"", *UNCOMPRESSED})))
"""What CT images are taken in: all that the intake reads."""

RECEIVED: Final = (*sorted(CT_CLASSES), RTStructureSetStorage)
SENT: Final = (RTStructureSetStorage, SegmentationStorage, EncapsulatedPDFStorage)

FIND: Final = StudyRootQueryRetrieveInformationModelFind
MOVE: Final = StudyRootQueryRetrieveInformationModelMove
GET: Final = StudyRootQueryRetrieveInformationModelGet


@dataclass(frozen=True, slots=True)
class Offered:
    """One SOP class, in one role, with its transfer syntaxes."""

    service: str
    sop_class: UID
    role: str
    transfer_syntaxes: tuple[UID, ...]


def offered() -> Iterator[Offered]:
    """Everything that the gateway offers or asks for.

    In the order of a conformance statement.
    """
    yield Offered("Verification", UID(Verification), "SCP and SCU", PLAIN)
    for uid in RECEIVED:
        yield Offered("Storage", UID(uid), "SCP", syntaxes_of(uid))
    for uid in SENT:
        yield Offered("Storage", UID(uid), "SCU", PLAIN)
    for uid in (FIND, MOVE, GET):
        yield Offered("Query/Retrieve", UID(uid), "SCU", PLAIN)


def syntaxes_of(sop_class: str) -> tuple[UID, ...]:
    """Transfer syntaxes that a SOP class is taken in."""
    return UNCOMPRESSED if sop_class == RTStructureSetStorage else IMAGES


def accepted() -> list[PresentationContext]:
    """What an association that is opened to us may hold."""
    storage = [build_context(uid, list(syntaxes_of(uid))) for uid in RECEIVED]
    return [build_context(Verification, list(PLAIN)), *storage]
