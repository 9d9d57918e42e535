"""The masks of a job to a DICOM Segmentation (PS3.3 A.51).

BINARY, one frame for each organ on each slice that it has voxels on.

It says the same as the job's RTSTRUCT, from which it takes whose it is, the numbers, names, colours and codes of the ROIs, and
who drew them; its masks are the exact ones, not the contours filled. The same job gives the same bytes.

The pixels are packed slice by slice: 21 organs on a series of 512 × 512 × 186 are 1 GB as one array. They overlap, so a label map
cannot hold them (PS3.3 C.8.20.2.3.3).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Final

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage
from pydicom.valuerep import DSfloat

from oarlock.arrays import FloatArray
from oarlock.ct.series import Instance, SeriesHeader
from oarlock.dicom.encoding import dataset_start, split_elements
from oarlock.dicom.patient_attributes import WANTED, to_template
from oarlock.errors import ResultNotFound
from oarlock.organs.catalogue import ANATOMICAL_STRUCTURE_CODE, LATERALITY_CODES, Laterality
from oarlock.pictures.slice_archive import Rendering
from oarlock.rtstruct.writer import derived_uid, file_meta
from oarlock.seg.cielab import to_cielab

SERIES_NUMBER: Final = 9022
SERIES_DESCRIPTION: Final = "Oarlock segmentation (UNAPPROVED)"
CONTENT_LABEL: Final = "UNAPPROVED"
CONTENT_DESCRIPTION: Final = "Automatic contours, not approved, not reviewed"

_SEGMENTATION: Final = ("113076", "DCM", "Segmentation")
_SOURCE_IMAGE: Final = ("121322", "DCM", "Source image for image processing operation")
_EVEN_MM: Final = 0.01
"""Distances between slices that differ by more are not stated as one."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """What the RTSTRUCT says of an ROI: ``label`` in the CT's character set, ``colour`` sRGB; ``bit`` is that of the masks."""

    number: int
    label: bytes
    algorithm: str
    colour: tuple[int, int, int]
    code: tuple[str, str, str]
    side: Laterality | None
    bit: int


@dataclass(frozen=True, slots=True)
class _Frame:
    """One segment on one slice; ``pixels`` are packed, 8 to a byte, the first one in the lowest bit."""

    segment: int
    z: int
    pixels: bytes


def series_uid(rtstruct_uid: str) -> str:
    """Series Instance UID of the segmentation that belongs to an RTSTRUCT."""
    return derived_uid(rtstruct_uid, "segmentation", "series")


def instance_uid(rtstruct_uid: str) -> str:
    """SOP Instance UID of the segmentation that belongs to an RTSTRUCT."""
    return derived_uid(rtstruct_uid, "segmentation", "instance")


def to_segmentation(rtstruct: bytes, header: SeriesHeader, rendering: Rendering) -> bytes:
    """The Part 10 file of a job's segmentation.

    In Explicit VR Little Endian.

    An organ without a voxel is a segment without a frame, as it is an ROI without contours in the RTSTRUCT.

    :param rtstruct: the job's own file.
    :param header: of the same series: planes and UIDs, see :func:`oarlock.ct.series_geometry.read_series_geometry`.
    :param rendering: holds the masks on ``header.grid``.
    :raises ResultNotFound: if the RTSTRUCT has no ROI: a segmentation must have a segment.
    """
    elements = dict(split_elements(rtstruct[dataset_start(rtstruct) :]))
    segments = _segments(elements, rendering)
    if not segments:
        raise ResultNotFound(what="segmentation")
    frames, overlap = _frames(segments, rendering)
    dataset = _header(elements, header)
    dataset.SegmentsOverlap = "YES" if overlap else "NO"
    dataset.SegmentSequence = [_segment(segment) for segment in segments]
    _describe_frames(dataset, frames, header)
    dataset.PixelData = _joined([frame.pixels for frame in frames], header.grid.rows * header.grid.columns)
    dataset.file_meta = file_meta(dataset, ExplicitVRLittleEndian)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


# ── from the RTSTRUCT and the masks ───────────────────────────────────────────────────────────────────────────────────


def _segments(elements: Mapping[int, bytes], rendering: Rendering) -> list[_Segment]:
    """One for each ROI, in their order, with its number. An organ is known by its code and its side."""
    bits = {(oar.snomed_code, oar.laterality): bit for bit, oar in enumerate(rendering.oars)}
    colours = {_text(roi, "ReferencedROINumber"): _text(roi, "ROIDisplayColor") for roi in _items(elements, "ROIContourSequence")}
    observed = {_text(roi, "ReferencedROINumber"): roi for roi in _items(elements, "RTROIObservationsSequence")}
    sides = {code: side for side, (code, *_) in LATERALITY_CODES.items()}
    found = []
    for roi in _items(elements, "StructureSetROISequence"):
        number = _text(roi, "ROINumber")
        (organ,) = _items(observed[number], "RTROIIdentificationCodeSequence")
        modifiers = [_text(item, "CodeValue") for item in _items(organ, "SegmentedPropertyTypeModifierCodeSequence")]
        side = sides[modifiers[0]] if modifiers else None
        code = _text(organ, "CodeValue"), _text(organ, "CodingSchemeDesignator"), _text(organ, "CodeMeaning")
        red, green, blue = (int(value) for value in colours[number].split("\\"))
        label, algorithm = roi[_tag("ROIName")].rstrip(b" \0"), _text(roi, "ROIGenerationDescription")
        found.append(_Segment(int(number), label, algorithm, (red, green, blue), code, side, bits[code[0], side]))
    return found


def _items(elements: Mapping[int, bytes], keyword: str) -> list[dict[int, bytes]]:
    return [dict(split_elements(item)) for _, item in split_elements(elements.get(_tag(keyword), b""))]


def _text(elements: Mapping[int, bytes], keyword: str) -> str:
    """An element that Oarlock wrote in ASCII."""
    return elements.get(_tag(keyword), b"").decode("ascii").rstrip(" \0")


@cache
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None  # our own keywords
    return tag


def _frames(segments: Sequence[_Segment], rendering: Rendering) -> tuple[list[_Frame], bool]:
    """The frames that hold something, segment by segment from the first slice on, and whether segments overlap.

    Where nothing at all is drawn, there is one empty frame: an image must have one (PS3.3 C.7.6.6).
    """
    used = np.bitwise_or.reduce(np.array([1 << segment.bit for segment in segments], dtype=np.uint32))
    frames, overlap = [], False
    for z in np.flatnonzero(rendering.counts.any(axis=0)):
        words = rendering.masks_of(int(z)) & used
        overlap = overlap or bool(np.any(words & (words - np.uint32(1))))  # a bit beside the lowest one
        for segment in segments:
            if rendering.counts[segment.bit, z]:
                mask = words & np.uint32(1 << segment.bit) != 0
                frames.append(_Frame(segment.number, int(z), np.packbits(mask, bitorder="little").tobytes()))
    if not frames:
        empty = np.zeros(rendering.grid.rows * rendering.grid.columns, dtype=bool)
        frames = [_Frame(segments[0].number, 0, np.packbits(empty).tobytes())]
    return sorted(frames, key=lambda frame: (frame.segment, frame.z)), overlap


def _joined(frames: Iterable[bytes], pixels: int) -> bytes:
    """All frames as one stream of bits without a gap between two of them, padded to an even length (PS3.5 8.1.1, 8.2)."""
    packed, left = bytearray(), np.zeros(0, dtype=np.uint8)
    for frame in frames:
        bits = np.concatenate([left, np.unpackbits(np.frombuffer(frame, np.uint8), count=pixels, bitorder="little")])
        whole = len(bits) // 8 * 8
        packed += np.packbits(bits[:whole], bitorder="little").tobytes()
        left = bits[whole:]
    packed += np.packbits(left, bitorder="little").tobytes()
    return bytes(packed) + b"\0" * (len(packed) % 2)


# ── the data set ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _header(elements: Mapping[int, bytes], header: SeriesHeader) -> Dataset:
    """Everything but the segments and the frames."""
    dataset, _ = to_template({tag: value for tag, value in elements.items() if tag in WANTED})
    rtstruct_uid = _text(elements, "SOPInstanceUID")
    date, time = _text(elements, "StructureSetDate"), _text(elements, "StructureSetTime")
    _set(
        dataset,
        SOPClassUID=SegmentationStorage,
        SOPInstanceUID=instance_uid(rtstruct_uid),
        StudyInstanceUID=header.study_instance_uid,
        SeriesInstanceUID=series_uid(rtstruct_uid),
        FrameOfReferenceUID=header.frame_of_reference_uid,
        Modality="SEG",
        **{f"{name}Date": date for name in ("InstanceCreation", "Series", "Content")},
        **{f"{name}Time": time for name in ("InstanceCreation", "Series", "Content")},
        SeriesNumber=SERIES_NUMBER,
        SeriesDescription=SERIES_DESCRIPTION,
        InstanceNumber=1,
        ImageType=["DERIVED", "PRIMARY"],
        ContentLabel=CONTENT_LABEL,
        ContentDescription=CONTENT_DESCRIPTION,
        ContentCreatorName="",
        ContentQualification="RESEARCH",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        SegmentationType="BINARY",
    )
    versions = _text(elements, "SoftwareVersions").split("\\")
    _set(
        dataset,
        Manufacturer=_text(elements, "Manufacturer"),
        ManufacturerModelName=_text(elements, "ManufacturerModelName"),
        SoftwareVersions=versions,
        DeviceSerialNumber=versions[-1],  # Type 1 here: the hash of the model tells our devices apart
    )
    _set(
        dataset,
        Rows=header.grid.rows,
        Columns=header.grid.columns,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelRepresentation=0,
    )
    images = {one.sop_instance_uid: one for one in header.instances}.values()
    referenced = [_item(ReferencedSOPClassUID=one.sop_class_uid, ReferencedSOPInstanceUID=one.sop_instance_uid) for one in images]
    dataset.ReferencedSeriesSequence = [
        _item(SeriesInstanceUID=header.series_instance_uid, ReferencedInstanceSequence=referenced)
    ]
    return dataset


def _segment(segment: _Segment) -> Dataset:
    """Item of Segment Sequence (PS3.3 C.8.20.2)."""
    kind = _code(segment.code)
    if segment.side is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_code(LATERALITY_CODES[segment.side])]
    item = _item(
        SegmentNumber=segment.number,
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=segment.algorithm,
        SegmentedPropertyCategoryCodeSequence=[_code(ANATOMICAL_STRUCTURE_CODE)],
        SegmentedPropertyTypeCodeSequence=[kind],
        RecommendedDisplayCIELabValue=to_cielab(segment.colour),
    )
    item.add(DataElement(BaseTag(_tag("SegmentLabel")), "LO", segment.label))
    return item


def _describe_frames(dataset: Dataset, frames: Sequence[_Frame], header: SeriesHeader) -> None:
    """Multi-frame Functional Groups and Dimension (PS3.3 C.7.6.16, C.7.6.17)."""
    dimensions = derived_uid(dataset.SOPInstanceUID, "dimensions")
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimensions)]
    pointers = (
        ("SegmentIdentificationSequence", "ReferencedSegmentNumber"),
        ("PlanePositionSequence", "ImagePositionPatient"),
    )
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=dimensions,
            DimensionIndexPointer=_tag(element),
            FunctionalGroupPointer=_tag(group),
            DimensionDescriptionLabel=element,
        )
        for group, element in pointers
    ]
    grid = header.grid
    measures = _item(
        PixelSpacing=_decimals([grid.row_spacing_mm, grid.column_spacing_mm]), SliceThickness=_decimals(grid.spacing_mm)[0]
    )
    if np.ptp(np.diff(grid.slice_positions_mm)) <= _EVEN_MM:
        measures.SpacingBetweenSlices = measures.SliceThickness
    cosines = _decimals([*grid.row_direction, *grid.column_direction])
    dataset.SharedFunctionalGroupsSequence = [
        _item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[_item(ImageOrientationPatient=cosines)])
    ]
    places = {z: place for place, z in enumerate(sorted({frame.z for frame in frames}), start=1)}
    dataset.PerFrameFunctionalGroupsSequence = Items(_groups(frame, header, places[frame.z]) for frame in frames)
    dataset.NumberOfFrames = len(frames)


def _groups(frame: _Frame, header: SeriesHeader, place: int) -> Dataset:
    return _item(
        FrameContentSequence=[_item(DimensionIndexValues=[frame.segment, place])],
        PlanePositionSequence=[_item(ImagePositionPatient=_decimals(header.grid.origins_mm[frame.z]))],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=frame.segment)],
        DerivationImageSequence=[
            _item(SourceImageSequence=[_source(header.instances[frame.z])], DerivationCodeSequence=[_code(_SEGMENTATION)])
        ],
    )


def _source(instance: Instance) -> Dataset:
    item = _item(
        ReferencedSOPClassUID=instance.sop_class_uid,
        ReferencedSOPInstanceUID=instance.sop_instance_uid,
        PurposeOfReferenceCodeSequence=[_code(_SOURCE_IMAGE)],
        SpatialLocationsPreserved="YES",
    )
    if instance.frame is not None:
        item.ReferencedFrameNumber = instance.frame
    return item


def _code(code: tuple[str, str, str]) -> Dataset:
    value, scheme, meaning = code
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _decimals(values: Iterable[float] | FloatArray) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    _set(item, **elements)
    return item


def _set(dataset: Dataset, **elements: Any) -> None:
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
