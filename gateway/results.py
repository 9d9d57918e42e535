"""Results as they leave: the DICOM file, and what is written into a folder."""

import uuid
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian

_NAMESPACE: Final = uuid.UUID("0f6cc1d5-8e0c-4b51-93a8-4dbd9a4b2c66")
_PREFIXES: Final = {"rtstruct": "RS", "seg": "SG", "report": "report"}
_TYPE_2: Final = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_CARRIED: Final = (
    *(*_TYPE_2, "StudyInstanceUID"),
    *("SpecificCharacterSet", "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("SoftwareVersions", "ManufacturerModelName"),
)
"""Attributes that a report takes from the RTSTRUCT that it is about: both belong to one study of one patient."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One result.

    :ivar dicom: as a DICOM file.
    :ivar plain: as it is written into a folder: a report as PDF, all else as DICOM.
    :ivar file_name: unlike that of any other result; holds UIDs and nothing of a patient.
    """

    uid: str
    dicom: bytes
    plain: bytes
    file_name: str


def finish(name: str, content: bytes, rtstruct: bytes) -> Finished:
    """A result of a job in the forms in which it leaves.

    :param name: ``rtstruct``, ``seg`` or ``report``.
    :param rtstruct: of the same job.
    """
    dicom = encapsulate(content, rtstruct) if name == "report" else content
    uid = str(pydicom.dcmread(BytesIO(dicom), specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
    suffix = "pdf" if name == "report" else "dcm"
    return Finished(uid, dicom, content, f"{_PREFIXES[name]}.{uid}.{suffix}")


def encapsulate(pdf: bytes, rtstruct: bytes) -> bytes:
    """A report as Encapsulated PDF (PS3.3 A.45.1). The same report of the same RTSTRUCT is the same instance, byte for byte."""
    about = pydicom.dcmread(BytesIO(rtstruct), stop_before_pixels=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = _uid(f"{about.SOPInstanceUID}|report")
    for keyword in _TYPE_2:
        setattr(dataset, keyword, "")
    for keyword in _CARRIED:
        if keyword in about:
            dataset[keyword] = about[keyword]
    dataset.Modality, dataset.ConversionType, dataset.Manufacturer = "DOC", "WSD", "Oarlock"
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = _uid(f"{about.SOPInstanceUID}|reports"), 1, 1
    dataset.SeriesDescription = "Oarlock report UNAPPROVED"
    dataset.ContentDate, dataset.ContentTime = about.get("StructureSetDate", ""), about.get("StructureSetTime", "")
    dataset.AcquisitionDateTime = ""
    dataset.BurnedInAnnotation, dataset.DocumentTitle = "YES", "Report on automatic contours, UNAPPROVED"
    dataset.ConceptNameCodeSequence = []
    dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocumentLength = "application/pdf", len(pdf)
    dataset.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uid(text: str) -> UID:
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, text).int}")
