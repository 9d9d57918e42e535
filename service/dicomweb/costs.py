"""What reading an image in full may cost the service.

pydicom makes objects of all that a file holds, and inflates what is deflated: of a few kilobytes that a stranger sent it can make
gigabytes. So an image is read in full only where its bytes cannot hold that much.
"""

import mmap
from pathlib import Path
from typing import Final

from oarlock.dicom.elements import DEFLATED, Header, read_elements
from oarlock.dicom.fragments import find_fragments
from oarlock.dicom.inflate import inflate
from oarlock.dicom.tags import Tag
from oarlock.dicom.unusable import Unusable

MAX_BYTES: Final = 2 * 2**20
"""Most bytes beside the pixels, 80 MB as objects; headers of scanners have some kilobytes, of 1,000 frames one megabyte."""

MAX_ITEMS: Final = 20_000
"""Most items of sequences, 30 MB as objects; 1,000 frames have 10,000."""

MAX_INFLATED: Final = 64 * 2**20

_ITEM: Final = b"\xfe\xff\x00\xe0"
_ITEM_BIG_ENDIAN: Final = b"\xff\xfe\xe0\x00"


def is_costly(path: Path) -> bool:
    """Whether an image holds too much beside its pixels.

    More than may be read in full here, though it was taken in.
    """
    try:
        header = read_elements(path, {Tag.ROWS, Tag.COLUMNS}, keep=lambda _: True)
        if header is None or header.pixel_data is None or header.size == 0:
            return True
        if header.transfer_syntax == DEFLATED:
            return _is_costly_inflated(header)
        pixels = header.pixel_data
        end = pixels.offset + pixels.length if pixels.length is not None else sum(find_fragments(path, pixels.offset)[-1])
    except Unusable:
        return True
    if pixels.element_offset + header.size - end > MAX_BYTES:
        return True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _many_items(content)


def _is_costly_inflated(header: Header) -> bool:
    if header.size > MAX_INFLATED:
        return True
    content, complete = inflate(header.path.read_bytes()[header.dataset_offset :], MAX_INFLATED)
    pixels = 2 * (header.unsigned(Tag.ROWS) or 0) * (header.unsigned(Tag.COLUMNS) or 0)
    return not complete or len(content) - pixels > MAX_BYTES or _many_items(content)


def _many_items(content: bytes | mmap.mmap) -> bool:
    """Whether the tag of an item stands there more often than :data:`MAX_ITEMS`, in either order of bytes."""
    for tag in (_ITEM, _ITEM_BIG_ENDIAN):
        place = -1
        for _ in range(MAX_ITEMS):
            place = content.find(tag, place + 1)
            if place < 0:
                break
        else:
            return True
    return False
