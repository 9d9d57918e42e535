"""Results as they leave: as DICOM, and in a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import pydicom
from pydicom.uid import EncapsulatedPDFStorage

_PREFIXES: Final[Mapping[str, str]] = {"rtstruct": "RS", "seg": "SG", "report": "report"}


@dataclass(frozen=True, slots=True)
class Finished:
    """One result.

    :ivar dicom: as a DICOM file.
    :ivar plain: as it is written into a folder: a report as PDF, all else as DICOM.
    :ivar file_name: unlike that of any other result; holds a UID and nothing of a patient.
    """

    uid: str
    dicom: bytes
    plain: bytes
    file_name: str


def finish(name: str, content: bytes) -> Finished:
    """A result of a job in the forms in which it leaves.

    :param name: ``rtstruct``, ``seg`` or ``report``.
    :param content: the DICOM file that the service gives; of a report the Encapsulated PDF.
    """
    dataset = pydicom.dcmread(BytesIO(content))
    uid, plain, suffix = str(dataset.SOPInstanceUID), content, "dcm"
    if dataset.SOPClassUID == EncapsulatedPDFStorage:
        document = dataset.EncapsulatedDocument
        plain, suffix = document[: dataset.get("EncapsulatedDocumentLength", len(document))], "pdf"
    return Finished(uid, content, plain, f"{_PREFIXES[name]}.{uid}.{suffix}")
