"""A PDF as a DICOM object (PS3.3 A.45.1).

An Encapsulated PDF is filed by an archive beside the RTSTRUCT that it is about.
"""

import hashlib
from io import BytesIO
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from oarlock.dicom.encoding import dataset_start, split_elements
from oarlock.dicom.patient_attributes import WANTED, to_template
from oarlock.rtstruct.writer import derived_uid, file_meta

SERIES_NUMBER: Final = 9023
SERIES_DESCRIPTION: Final = "Oarlock QA report (UNAPPROVED)"
TITLE: Final = "Contour QA report (UNAPPROVED)"


def series_uid(rtstruct_uid: str) -> str:
    """Series Instance UID of the report that belongs to an RTSTRUCT."""
    return derived_uid(rtstruct_uid, "report", "series")


def instance_uid(rtstruct_uid: str, version: str) -> str:
    """SOP Instance UID of a report.

    :param version: another text wherever the report says something else.
    """
    return derived_uid(rtstruct_uid, "report", hashlib.sha256(version.encode()).hexdigest())


def to_encapsulated_pdf(pdf: bytes, rtstruct: bytes, version: str) -> bytes:
    """The Part 10 file of a PDF about an RTSTRUCT.

    In Explicit VR Little Endian.

    :param rtstruct: the job's own file: patient, study, times and device are taken from it.
    :param version: another text wherever the report says something else: its SOP Instance UID follows from it.
    """
    elements = dict(split_elements(rtstruct[dataset_start(rtstruct) :]))
    dataset, _ = to_template({tag: value for tag, value in elements.items() if tag in WANTED})
    about = pydicom.dcmread(BytesIO(rtstruct), specific_tags=list(_TAKEN))
    _set(
        dataset,
        SOPClassUID=EncapsulatedPDFStorage,
        SOPInstanceUID=instance_uid(about.SOPInstanceUID, version),
        StudyInstanceUID=about.StudyInstanceUID,
        SeriesInstanceUID=series_uid(about.SOPInstanceUID),
        Modality="DOC",
        SeriesNumber=SERIES_NUMBER,
        SeriesDescription=SERIES_DESCRIPTION,
        InstanceNumber=1,
        ConversionType="WSD",
        DocumentTitle=TITLE,
        BurnedInAnnotation="YES",
        ConceptNameCodeSequence=[],
        ContentDate=about.StructureSetDate,
        ContentTime=about.StructureSetTime,
        AcquisitionDateTime="",
        Manufacturer=about.Manufacturer,
        ManufacturerModelName=about.ManufacturerModelName,
        SoftwareVersions=about.SoftwareVersions,
        MIMETypeOfEncapsulatedDocument="application/pdf",
        EncapsulatedDocumentLength=len(pdf),
        EncapsulatedDocument=pdf + b"\0" * (len(pdf) % 2),
        SourceInstanceSequence=[_reference(about)],
    )
    dataset.file_meta = file_meta(dataset, ExplicitVRLittleEndian)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


_TAKEN: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "StructureSetDate", "StructureSetTime"),
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions"),
)


def _reference(about: Dataset) -> Dataset:
    item = Dataset()
    _set(item, ReferencedSOPClassUID=about.SOPClassUID, ReferencedSOPInstanceUID=about.SOPInstanceUID)
    return item


def _set(dataset: Dataset, **elements: Any) -> None:
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
