"""Masks to an RTSTRUCT: the file that planning systems import (PS3.3 A.19).

The header is written by pydicom, which knows the character sets; the sequences, which are nearly all of the file, are encoded
here, many times faster. Everything that could change from run to run (UIDs, dates) comes from the job: the same input gives the
same bytes.

The transfer syntax is Implicit VR Little Endian: every system must accept it (PS3.5 10.1), and it alone has no limit of 65,534
bytes for the points of one contour (PS3.3 C.8.8.6.3).
"""

import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage

from oarlock import __version__
from oarlock.ct.series import Instance, SeriesHeader
from oarlock.dicom import patient_attributes as identity
from oarlock.dicom.encoding import encode_element, encode_sequence
from oarlock.errors import ProfileNotWritable, TooManyPoints
from oarlock.facts import ModelFacts, Notice
from oarlock.geometry.contours import PlanarContour, to_contours
from oarlock.geometry.masks import OARMasks
from oarlock.geometry.thinning import deviation_bound_mm, thin
from oarlock.organs.catalogue import ANATOMICAL_STRUCTURE_CODE, LATERALITY_CODES, OAR
from oarlock.rtstruct.profiles import GENERIC, LONGEST_LABEL, Profile, ROIStyle

NAMESPACE: Final = uuid.UUID("0c9d9a34-6b2e-4a5f-8f53-6a3c6a5a1f2e")
"""Of the UIDs that Oarlock derives from names (RFC 9562 version 5; PS3.5 B.2)."""

MANUFACTURER: Final = "Oarlock"
SERIES_NUMBER: Final = 9021

_STUDY_MANAGEMENT: Final = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, retired: what RT Referenced Study Sequence has always named (PS3.3 C.8.8.5)."""

_TYPE_2: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""Present though perhaps empty (PS3.3 C.7.1.1, C.7.2.1, C.7.4.1)."""

_OFFSET: Final = re.compile(r"[+-](0[0-9]|1[0-4])[0-5][0-9]")
"""Of Timezone Offset From UTC, from -1200 to +1400."""

_ROI_ALGORITHM: Final = "AUTOMATIC"
_INTERPRETED_TYPE: Final = "ORGAN"


@dataclass(frozen=True, slots=True)
class Authorship:
    """Who drew the contours, for which job.

    The source of every UID and date in the file.

    ``created_at`` is aware, in the site's time zone: its date and time are written, unless the CT states an offset of its own.
    ``parts`` gives for an organ, by name, the part of a composed model that drew it and the hash of that
    part; it is empty for a model of one part.
    """

    job_id: str
    created_at: datetime
    model: ModelFacts
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The model and the software, in the 64 characters of an LO."""
        tail = f" {self.model.version} ({self.model.sha256[:12]}), Oarlock {__version__}"
        return ascii_text(self.model.name, max(0, 64 - len(tail))) + ascii_text(tail, 64)

    def drawn_by(self, oar: OAR) -> str:
        """Who drew one organ, in the 64 characters of an LO."""
        if oar.name not in self.parts:
            return self.identity
        part, sha256 = self.parts[oar.name]
        tail = f" {self.model.version}, part {part} ({sha256[:12]})"
        return ascii_text(self.model.name, max(0, 64 - len(tail))) + ascii_text(tail, 64)

    def uid(self, role: str) -> str:
        """A UID that follows from job, model and role.

        Its role in the file.
        """
        return derived_uid(self.job_id, self.model.name, self.model.version, self.model.sha256, role)


@dataclass(frozen=True, slots=True)
class WrittenRTSTRUCT:
    """What was written.

    ``contours`` maps the TG-263 name of an OAR to its contours, none for an empty one.
    """

    sop_instance_uid: str
    label: str
    warnings: tuple[Notice, ...]
    contours: Mapping[str, list[PlanarContour]]


@dataclass(frozen=True, slots=True)
class _ROI:
    """An ROI of the file: its number, its style, its name in the CT's character set, and its contours."""

    number: int
    style: ROIStyle
    name: bytes
    contours: Sequence[PlanarContour]

    @property
    def oar(self) -> OAR:
        return self.style.oar


def write_rtstruct(
    path: Path, masks: OARMasks, header: SeriesHeader, authorship: Authorship, profile: Profile = GENERIC
) -> WrittenRTSTRUCT:
    """Write the contours of all OARs, whole or not at all.

    Into a temporary file that takes the place of ``path`` at the end.

    An empty OAR is named in a warning. It is listed among the ROIs without contours, unless the profile leaves it out.

    :param masks: on ``header.grid``.
    :raises ProfileNotWritable: a name of the profile has letters that the CT's character set does not have.
    :raises TooManyPoints: a contour cannot be brought down to the profile's maximum.
    """
    if masks.shape != header.grid.shape:
        raise ValueError(f"the masks have shape {masks.shape} and the grid {header.grid.shape}")
    styles = profile.styles_of(masks.oars)
    names = roi_names(profile, styles, header)
    contours, warnings = _contours(masks, styles, header, profile)
    rois = _rois(styles, names, contours, keep_empty=profile.keep_empty)
    dataset = _header(header, authorship, profile)
    _write_whole(path, _part_10(dataset, header, rois, authorship))
    warnings += [
        _empty(style.oar, kept=any(roi.oar == style.oar for roi in rois)) for style in styles if not contours[style.oar.name]
    ]
    return WrittenRTSTRUCT(dataset.SOPInstanceUID, dataset.StructureSetLabel, tuple(warnings), contours)


def roi_names(profile: Profile, styles: Sequence[ROIStyle], header: SeriesHeader) -> list[bytes]:
    """The ROI names of a file, by organ.

    In the character set of its CT.

    :raises ProfileNotWritable: one of them has letters that the character set does not have.
    """
    names = []
    for style in styles:
        name = identity.encoded(style.name, header.template)
        if name is None:
            raise ProfileNotWritable(profile=profile.name, oar=style.oar.name)
        names.append(name)
    return names


def _rois(
    styles: Sequence[ROIStyle], names: Sequence[bytes], contours: Mapping[str, list[PlanarContour]], *, keep_empty: bool
) -> list[_ROI]:
    """The ROIs of the file, numbered from 1; all of them if otherwise there were none, as there must be one (PS3.3 C.8.8.5)."""
    every = [(style, name, contours[style.oar.name]) for style, name in zip(styles, names, strict=True)]
    listed = every if keep_empty else [entry for entry in every if entry[2]] or every
    return [_ROI(number, *entry) for number, entry in enumerate(listed, start=1)]


def derived_uid(*parts: str) -> str:
    """A UID under 2.25 that follows from its parts (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(parts)).int}"


def ascii_text(text: str, length: int) -> str:
    """Text of our own, of at most ``length`` characters.

    It fits such a value in every character set.
    """
    cleaned = "".join(c if c.isprintable() and c.isascii() and c != "\\" else "?" for c in text)
    return cleaned[:length]


def _contours(
    masks: OARMasks, styles: Sequence[ROIStyle], header: SeriesHeader, profile: Profile
) -> tuple[dict[str, list[PlanarContour]], list[Notice]]:
    """The contours of every OAR by name, with no more points than the profile allows."""
    found: dict[str, list[PlanarContour]] = {}
    warnings: list[Notice] = []
    for style in styles:
        cropped = masks.crop(style.oar)
        found[style.oar.name] = [] if cropped is None else to_contours(cropped[1], cropped[0], header.grid)
        if profile.max_points is not None:
            found[style.oar.name], thinned = _thinned(style.oar, found[style.oar.name], header, profile, profile.max_points)
            warnings += thinned
    return found, warnings


def _thinned(
    oar: OAR, contours: list[PlanarContour], header: SeriesHeader, profile: Profile, max_points: int
) -> tuple[list[PlanarContour], list[Notice]]:
    """Contours within the profile's maximum of points, and a warning that says how far they leave the exact ones."""
    thinned = thin(contours, header.grid, max_points=max_points, max_deviation_mm=profile.max_deviation_mm)
    if (stubborn := thinned.stubborn) is not None:
        bound_mm = deviation_bound_mm(header.grid, profile.max_deviation_mm)
        points, slice_number = len(stubborn.points_mm), stubborn.z + 1
        raise TooManyPoints(oar=oar.name, slice_number=slice_number, points=points, limit=max_points, deviation_mm=bound_mm)
    if not thinned.changed:
        return thinned.contours, []
    detail = f"{thinned.changed} contour(s) of {oar.name} were brought down to the profile's {max_points} points"
    detail += f"; they leave the exact line by up to {thinned.deviation_mm:.2f} mm."
    return thinned.contours, [Notice("rtstruct.thinned", detail)]


def _empty(oar: OAR, *, kept: bool) -> Notice:
    roi = "its ROI has no contours" if kept else "the profile leaves its ROI out"
    return Notice("rtstruct.empty_roi", f"{oar.name} is empty: the model drew nothing, and {roi}.")


# ── the header ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _header(header: SeriesHeader, authorship: Authorship, profile: Profile) -> Dataset:
    """All elements in front of the sequences: none has a tag above (3006,0009)."""
    dataset = _patient_and_study(header)
    created = authorship.created_at.astimezone(_stated_offset(dataset, otherwise=authorship.created_at.tzinfo))
    date, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S")
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = authorship.uid("instance")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.TimezoneOffsetFromUTC = created.strftime("%z")
    dataset.SeriesInstanceUID = authorship.uid("series")
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesDate, dataset.SeriesTime = date, time
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SeriesDescription = profile.series_description
    dataset.OperatorsName = ""
    dataset.InstanceNumber = 1
    _describe_equipment(dataset, authorship)
    model, version = ascii_text(authorship.model.name, 16), ascii_text(authorship.model.version, 16)
    dataset.StructureSetLabel = profile.structure_set_label(created, model=model, version=version)
    dataset.StructureSetName = ascii_text(f"{MANUFACTURER} {authorship.model.name}", 64)
    dataset.StructureSetDescription = f"Automatic contours, not approved. {authorship.identity}. Profile {profile.name}"
    dataset.StructureSetDate, dataset.StructureSetTime = date, time
    return dataset


def _describe_equipment(dataset: Dataset, authorship: Authorship) -> None:
    """General Equipment (PS3.3 C.7.5.1)."""
    model = authorship.model
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = ascii_text(f"{MANUFACTURER} {model.name}", 64)
    versions = (f"Oarlock {__version__}", f"{model.name} {model.version}", f"sha256 {model.sha256[:48]}")
    dataset.SoftwareVersions = [ascii_text(version, 64) for version in versions]


def _patient_and_study(header: SeriesHeader) -> Dataset:
    """What tells whose file this is, unchanged and in the CT's own character set."""
    dataset = Dataset()
    for element in header.template:
        dataset.add(element)
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    dataset.StudyInstanceUID = header.study_instance_uid
    dataset.FrameOfReferenceUID = header.frame_of_reference_uid
    return dataset


def _stated_offset(dataset: Dataset, otherwise: tzinfo | None) -> tzinfo | None:
    """The offset that the CT states for its times: it holds for all times of a file (PS3.3 C.12.1.1.8)."""
    offset = str(dataset.get("TimezoneOffsetFromUTC", ""))
    if not _OFFSET.fullmatch(offset):
        return otherwise
    minutes = 60 * int(offset[1:3]) + int(offset[3:])
    return timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes))


# ── the bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _part_10(dataset: Dataset, header: SeriesHeader, rois: Sequence[_ROI], authorship: Authorship) -> bytes:
    """The file: header, sequences in the order of their tags, approval."""
    buffer = BytesIO()
    dataset.file_meta = file_meta(dataset, ImplicitVRLittleEndian)
    dataset.save_as(buffer, enforce_file_format=True)
    images = [_image(instance, [instance.frame] if instance.frame else []) for instance in header.instances]
    return b"".join(
        (
            buffer.getvalue(),
            _sequence("ReferencedFrameOfReferenceSequence", [_frame_of_reference(header)]),
            _sequence("StructureSetROISequence", [_roi(roi, header, authorship) for roi in rois]),
            _sequence("ROIContourSequence", [_roi_contour(roi, images) for roi in rois]),
            _sequence("RTROIObservationsSequence", [_observation(roi) for roi in rois]),
            _value("ApprovalStatus", "UNAPPROVED"),
        )
    )


def file_meta(dataset: Dataset, transfer_syntax: UID) -> FileMetaDataset:
    """The meta information of a file that Oarlock writes (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = UID(derived_uid("implementation"))
    meta.ImplementationVersionName = ascii_text(f"OARLOCK_{__version__}", 16)
    return meta


def _frame_of_reference(header: SeriesHeader) -> bytes:
    """Item of Referenced Frame of Reference Sequence: study, series, and exactly the instances that were received."""
    images = _sequence("ContourImageSequence", _images(header.instances))
    series = _value("SeriesInstanceUID", header.series_instance_uid) + images
    study = _reference(_STUDY_MANAGEMENT, header.study_instance_uid) + _sequence("RTReferencedSeriesSequence", [series])
    return _value("FrameOfReferenceUID", header.frame_of_reference_uid) + _sequence("RTReferencedStudySequence", [study])


def _roi(roi: _ROI, header: SeriesHeader, authorship: Authorship) -> bytes:
    """Item of Structure Set ROI Sequence (PS3.3 C.8.8.5)."""
    return b"".join(
        (
            _value("ROINumber", str(roi.number)),
            _value("ReferencedFrameOfReferenceUID", header.frame_of_reference_uid),
            _element("ROIName", roi.name),
            _value("ROIGenerationAlgorithm", _ROI_ALGORITHM),
            _value("ROIGenerationDescription", authorship.drawn_by(roi.oar)),
        )
    )


def _roi_contour(roi: _ROI, images: Sequence[bytes]) -> bytes:
    """Item of ROI Contour Sequence (PS3.3 C.8.8.6); an empty ROI has no Contour Sequence at all."""
    items = (
        _contour(i, contour, numbers, images[contour.z])
        for i, (contour, numbers) in enumerate(zip(roi.contours, _decimal_strings(roi.contours), strict=True), start=1)
    )
    colour = _value("ROIDisplayColor", "\\".join(str(level) for level in roi.style.colour))
    drawn = _sequence("ContourSequence", items) if roi.contours else b""
    return colour + drawn + _value("ReferencedROINumber", str(roi.number))


def _contour(number: int, contour: PlanarContour, numbers: bytes, image: bytes) -> bytes:
    return b"".join(
        (
            _sequence("ContourImageSequence", [image]),
            _value("ContourGeometricType", "CLOSED_PLANAR"),
            _value("NumberOfContourPoints", str(len(contour.points_mm))),
            _value("ContourNumber", str(number)),
            _element("ContourData", numbers),
        )
    )


def _decimal_strings(contours: Sequence[PlanarContour]) -> Iterator[bytes]:
    """The points of each contour as Decimal Strings in whole micrometres: at most 16 characters for all of 10 km."""
    if not contours:
        return iter(())
    flat = [np.round(contour.points_mm, 3).reshape(-1) + 0.0 for contour in contours]  # + 0.0: never "-0.0"
    text = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
    return iter(text[2:-2].replace(b",", b"\\").split(b"]\\["))


def _observation(roi: _ROI) -> bytes:
    """Item of RT ROI Observations Sequence (PS3.3 C.8.8.8); its label, a Short String, is left out where the name is longer.

    A Short String has 16 characters; validators count 16 bytes, and so do we.
    """
    short = len(roi.name) <= LONGEST_LABEL
    return b"".join(
        (
            _sequence("SegmentedPropertyCategoryCodeSequence", [_code(ANATOMICAL_STRUCTURE_CODE)]),
            _value("ObservationNumber", str(roi.number)),
            _value("ReferencedROINumber", str(roi.number)),
            _element("ROIObservationLabel", roi.name) if short else b"",
            _sequence("RTROIIdentificationCodeSequence", [_organ_code(roi.oar)]),
            _value("RTROIInterpretedType", _INTERPRETED_TYPE),
            _value("ROIInterpreter", ""),
        )
    )


def _organ_code(oar: OAR) -> bytes:
    code = _code((oar.snomed_code, "SCT", oar.snomed_meaning))
    if oar.laterality is None:
        return code
    return code + _sequence("SegmentedPropertyTypeModifierCodeSequence", [_code(LATERALITY_CODES[oar.laterality])])


def _code(code: tuple[str, str, str]) -> bytes:
    """Item of a code sequence (PS3.3 Table 8.8-1)."""
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return b"".join(_value(keyword, text) for keyword, text in zip(keywords, code, strict=True))


def _reference(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Item of a sequence that references an instance (PS3.3 Table 10-11)."""
    return _value("ReferencedSOPClassUID", sop_class_uid) + _value("ReferencedSOPInstanceUID", sop_instance_uid)


def _image(instance: Instance, frames: Sequence[int]) -> bytes:
    """Reference to an image, or to some of its frames (PS3.3 Table 10-3)."""
    reference = _reference(instance.sop_class_uid, instance.sop_instance_uid)
    return reference + (_value("ReferencedFrameNumber", "\\".join(map(str, frames))) if frames else b"")


def _images(instances: Sequence[Instance]) -> list[bytes]:
    """References to each image once, by slice; frames are numbered only where not all of an image's are meant."""
    frames: dict[str, list[int | None]] = {}
    for instance in instances:
        frames.setdefault(instance.sop_instance_uid, []).append(instance.frame)
    unique = {instance.sop_instance_uid: instance for instance in instances}
    return [
        _image(instance, [] if len(frames[uid]) == instance.frames else sorted(filter(None, frames[uid])))
        for uid, instance in unique.items()
    ]


def _sequence(keyword: str, items: Iterable[bytes]) -> bytes:
    return encode_sequence(_tag(keyword), items)


def _value(keyword: str, text: str) -> bytes:
    """An element of ASCII text."""
    return encode_element(_tag(keyword), text.encode("ascii"))


def _element(keyword: str, value: bytes) -> bytes:
    return encode_element(_tag(keyword), value)


@cache
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None  # our own keywords
    return tag


def _write_whole(path: Path, content: bytes) -> None:
    """Put a file in its place in one step, after it has reached the disk."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
