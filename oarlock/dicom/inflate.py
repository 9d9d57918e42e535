"""Deflated data sets, inflated up to a limit (PS3.5 A.5: raw deflate)."""

import zlib

from oarlock.dicom.unusable import Unusable


def inflate(deflated: bytes, limit_bytes: int) -> tuple[bytes, bool]:
    """At most ``limit_bytes`` of the content, and whether that is all.

    :raises Unusable: it is not deflated data.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(deflated, limit_bytes)
    except zlib.error:
        raise Unusable("its deflated data set cannot be inflated") from None
    return content, inflater.eof
