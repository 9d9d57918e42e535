"""What each file of an upload is.

A slice of a CT series, a structure set, or something to set aside.

Only the class and the identity of the files count here; whether the slices fit together is decided in :mod:`oarlock.ct.series`.
Sources: PS3.4 B.5 (SOP classes), PS3.3 C.8.2.1.1.1 (Image Type), PS3.5 9 (unique identifiers).
"""

import filecmp
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.config import IGNORE
from pydicom.uid import UID

from oarlock.ct.multiframe import to_frames
from oarlock.dicom.elements import Header, read_elements
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable
from oarlock.errors import DuplicateInstance, InstanceUnreadable, MultiFrameCT, NoCTImages, NotDicom
from oarlock.facts import Notice

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT: Final = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
MEDIA_DIRECTORY: Final = "1.2.840.10008.1.3.10"

MAX_UPLOAD_ELEMENTS: Final = 1_500_000
"""Most elements in the headers of an upload, nested ones included: 3 s of walking. Scanners write 100 to 2,000 a slice, of which
those in sequences of stated length are stepped over."""

MAX_UPLOAD_FRAMES: Final = 16_384
"""Most frames that the multi-frame images of an upload may claim: those of the longest series 16 times over."""

WANTED: Final = frozenset({Tag.IMAGE_TYPE, Tag.SOP_CLASS_UID, Tag.SOP_INSTANCE_UID, Tag.MODALITY, Tag.NUMBER_OF_FRAMES})

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A DICOM file of the upload, or one frame of it.

    ``frame`` counts the frames of a multi-frame image from 1, and ``frames`` says how many it has; None and 1 for other files.
    """

    position: int
    header: Header
    frame: int | None = None
    frames: int = 1

    @property
    def sop_class(self) -> str:
        """SOP Class UID; empty where the file states none.

        Of the data set, or else of the file meta information.
        """
        return self.header.text(Tag.SOP_CLASS_UID) or self.header.text(Tag.MEDIA_STORAGE_SOP_CLASS_UID)

    def uid(self, tag: int) -> str:
        """A UID; empty if absent or not valid (PS3.5 9.1)."""
        text = self.header.text(tag)
        return text if len(text) <= 64 and _UID.fullmatch(text) else ""


class SortedFiles:
    """The files of an upload by what they are."""

    def __init__(self) -> None:
        self.ct: list[DicomFile] = []
        self.structure_sets: dict[bytes, Path] = {}
        self.warnings: list[Notice] = []
        self.set_aside: Counter[str] = Counter()
        self.doubles = 0
        self.not_dicom = 0
        self._visited = 0
        self._frames = 0

    def visit(self, file: DicomFile) -> None:
        """Count the elements that were looked at in a file.

        :raises InstanceUnreadable: with those of the files before it there are too many.
        """
        self._visited += file.header.visited
        if self._visited > MAX_UPLOAD_ELEMENTS:
            reason = f"the headers up to it hold more than {MAX_UPLOAD_ELEMENTS:,} elements"
            raise InstanceUnreadable(position=file.position, reason=reason)

    def slices(self) -> list[DicomFile]:
        """The axial CT images, each once, ordered by UID.

        What was set aside becomes a warning.

        A multi-frame image gives as many slices as it has frames that are not localizers.
        """
        unique, doubles = _without_doubles(self.ct)
        slices = [frame for file in unique for frame in self._frames_of(file)]
        if not slices:
            raise NoCTImages(found=[*self.set_aside, *(["RT structure set"] if self.structure_sets else [])])
        self.warnings += _set_aside_warnings(self.set_aside, self.not_dicom)
        if doubles + self.doubles:
            detail = f"{doubles + self.doubles} file(s) were sent more than once, byte for byte the same; each is used once."
            self.warnings.append(Notice("series.duplicate_ignored", detail))
        return slices

    def _frames_of(self, file: DicomFile) -> list[DicomFile]:
        if file.sop_class not in MULTI_FRAME_CT:
            return [file]
        claimed = _frames(file.header)
        self._frames += claimed
        if self._frames > MAX_UPLOAD_FRAMES:
            reason = f"it claims {claimed} frames, and an upload may hold {MAX_UPLOAD_FRAMES:,}"
            raise MultiFrameCT(position=file.position, reason=reason)
        try:
            headers = to_frames(file.header, claimed)
        except Unusable as reason:
            raise MultiFrameCT(position=file.position, reason=str(reason)) from None
        frames = [DicomFile(file.position, header, i, len(headers)) for i, header in enumerate(headers, start=1)]
        self.visit(frames[0])
        slices = [frame for frame in frames if "LOCALIZER" not in _image_type(frame.header)]
        if len(slices) < len(frames):
            self.set_aside[_LOCALIZER] += 1
        return slices


def sort_out(files: Sequence[Path], wanted: frozenset[int]) -> SortedFiles:
    """What each file is, told from its header.

    :param files: the files of the upload, in its order; positions count them from 1.
    :param wanted: tags of the elements that the CT images are read for, those of :data:`WANTED` among them.
    :raises SeriesError: nothing is DICOM, or a file is damaged.
    """
    sorted_files = SortedFiles()
    for position, path in enumerate(files, start=1):
        header = _read(path, position, wanted)
        if header is None:
            sorted_files.not_dicom += 1
            continue
        file = DicomFile(position, header)
        _place(sorted_files, file)
        sorted_files.visit(file)
    if files and sorted_files.not_dicom == len(files):
        raise NotDicom(files=len(files))
    return sorted_files


def _read(path: Path, position: int, wanted: frozenset[int]) -> Header | None:
    try:
        return read_elements(path, wanted, keep=lambda sop_class: sop_class == CT_IMAGE or sop_class in MULTI_FRAME_CT)
    except Unusable as reason:
        raise InstanceUnreadable(position=position, reason=str(reason)) from None


def _place(sorted_files: SortedFiles, file: DicomFile) -> None:
    sop_class = file.sop_class
    if sop_class == RT_STRUCTURE_SET:
        _take_structure_set(sorted_files, file.header.path)
    elif sop_class != CT_IMAGE and sop_class not in MULTI_FRAME_CT:
        sorted_files.set_aside[_kind(sop_class)] += 1
    elif "LOCALIZER" in _image_type(file.header):
        sorted_files.set_aside[_LOCALIZER] += 1
    elif not file.header.text(Tag.MODALITY):
        raise InstanceUnreadable(position=file.position, reason="it does not state its modality, or is cut off before that")
    elif file.header.text(Tag.MODALITY) != "CT":
        sorted_files.set_aside["CT image of another modality"] += 1
    elif sop_class == CT_IMAGE and _frames(file.header) > 1:
        reason = "it is of the class for single frames, which has no place for the planes of several"
        raise MultiFrameCT(position=file.position, reason=reason)
    else:
        sorted_files.ct.append(file)


def _take_structure_set(sorted_files: SortedFiles, path: Path) -> None:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").digest()
    if digest in sorted_files.structure_sets:
        sorted_files.doubles += 1
    else:
        sorted_files.structure_sets[digest] = path


_LOCALIZER: Final = "CT localizer"
_SECONDARY: Final = "secondary capture"


def _kind(sop_class: str) -> str:
    """The name of a SOP class in pydicom's dictionary; never the UID itself, which the sender chose."""
    if sop_class == MEDIA_DIRECTORY:
        return "DICOMDIR"
    if not sop_class:
        return "DICOM object without SOP class"
    if sop_class.startswith(SECONDARY_CAPTURE):
        return _SECONDARY
    uid = UID(sop_class, validation_mode=IGNORE)  # an invalid one would be logged with the bytes of the sender
    return uid.name.removesuffix(" Storage") if uid.name != uid else "private DICOM object"


def _image_type(header: Header) -> list[str]:
    return [value.strip() for value in header.text(Tag.IMAGE_TYPE).split("\\")]


def _frames(header: Header) -> int:
    text = header.text(Tag.NUMBER_OF_FRAMES)
    return int(text) if text.isdigit() and len(text) <= 9 else 1


def _set_aside_warnings(kinds: Counter[str], not_dicom: int) -> list[Notice]:
    found = []
    for kind, count in sorted(kinds.items()):
        code = {_LOCALIZER: "series.localizer_set_aside", _SECONDARY: "series.secondary_capture_set_aside"}.get(kind)
        detail = f"{count} file(s) are not axial CT images ({kind}) and were ignored."
        found.append(Notice(code or "series.other_object_set_aside", detail))
    if not_dicom:
        found.append(Notice("series.not_dicom_set_aside", f"{not_dicom} file(s) are not DICOM and were ignored."))
    return found


def _without_doubles(files: Iterable[DicomFile]) -> tuple[list[DicomFile], int]:
    """Files by SOP Instance UID, each once, and how many were the same bytes again.

    :raises DuplicateInstance: the same UID with other bytes.
    """
    by_uid: dict[str, DicomFile] = {}
    doubles = 0
    for file in files:
        uid = file.uid(Tag.SOP_INSTANCE_UID)
        if not uid:
            raise InstanceUnreadable(position=file.position, reason="it has no valid SOP Instance UID")
        first = by_uid.setdefault(uid, file)
        if first is not file:
            if not filecmp.cmp(first.header.path, file.header.path, shallow=False):
                raise DuplicateInstance(first=first.position, second=file.position)
            doubles += 1
    return [by_uid[uid] for uid in sorted(by_uid)], doubles
