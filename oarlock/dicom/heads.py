"""Heads of data elements and items: tag, VR and length.

Source: PS3.5 7.1.2, 7.1.3, 7.5.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final

from oarlock.dicom.tags import ITEM_END
from oarlock.dicom.unusable import Unusable

LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Two reserved bytes and a length of 32 bits follow these."""

SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT"}
    | {b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
"""A length of 16 bits follows these."""

UNDEFINED: Final = 0xFFFFFFFF
LONGEST_HEAD: Final = 12

ReadBytes = Callable[[int, int], bytes]
"""At most so many bytes (second) from an offset on (first); fewer at the end."""


class InvalidVR(Unusable):
    """An element has a VR that the standard does not know.

    So its length is not known either.
    """


class HeadReader:
    """Reads heads in one byte order."""

    def __init__(self, order: str) -> None:
        self._implicit = struct.Struct(f"{order}HHI")
        self._short, self._long = struct.Struct(f"{order}H"), struct.Struct(f"{order}I")

    def read(self, buffer: bytes, at: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR, value length and length of the head itself.

        The VR is empty if it is implicit.

        :raises InvalidVR: the VR is not one of the standard's.
        :raises Unusable: the buffer ends before the head does.
        """
        if at + 8 > len(buffer):
            raise Unusable("it is cut off")
        group, element, length = self._implicit.unpack_from(buffer, at)
        if implicit or group == 0xFFFE:
            return group << 16 | element, b"", length, 8
        vr = buffer[at + 4 : at + 6]
        if vr in SHORT_VRS:
            return group << 16 | element, vr, self._short.unpack_from(buffer, at + 6)[0], 8
        if vr not in LONG_VRS:
            raise InvalidVR(f"the element ({group:04X},{element:04X}) has no valid value representation")
        if at + LONGEST_HEAD > len(buffer):
            raise Unusable("it is cut off")
        return group << 16 | element, vr, self._long.unpack_from(buffer, at + 8)[0], LONGEST_HEAD

    def skip(self, read: ReadBytes, offset: int, end: int) -> tuple[int, int]:
        """Tag of an element with an invalid VR, and its end.

        The end is the offset behind it.

        Its length may have 16 or 32 bits, with or without a VR in front. What counts is which of these readings leads to
        the next element: one with a higher tag and a valid VR (or a further private one of the same group), or the end.

        :param end: of the data set that the element stands in.
        :raises InvalidVR: none of the readings, or more than one, leads there.
        """
        group, element = self._implicit.unpack(read(offset, 8))[:2]
        tag = group << 16 | element
        ends = {
            behind for behind in self._readings(read(offset, LONGEST_HEAD), offset) if self._continues(read, behind, end, tag)
        }
        if len(ends) != 1:
            raise InvalidVR(f"the element ({group:04X},{element:04X}) has no valid value representation")
        return tag, ends.pop()

    def _readings(self, head: bytes, offset: int) -> Iterator[int]:
        """Offsets at which the value can end."""
        yield offset + 8 + self._short.unpack_from(head, 6)[0]
        yield offset + 8 + self._long.unpack_from(head, 4)[0]
        if len(head) == LONGEST_HEAD:
            yield offset + LONGEST_HEAD + self._long.unpack_from(head, 8)[0]

    def _continues(self, read: ReadBytes, behind: int, end: int, tag: int) -> bool:
        """Whether the data set ends there, or another element stands there that may follow."""
        if behind >= end:
            return behind == end
        head = read(behind, 8)
        if len(head) < 8:
            return False
        group, element, _ = self._implicit.unpack(head)
        following = group << 16 | element
        private_too = group % 2 == 1 and group == tag >> 16
        return following > tag and (following == ITEM_END or head[4:6] in SHORT_VRS | LONG_VRS or private_too)
