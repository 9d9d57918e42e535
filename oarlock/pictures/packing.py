"""Arrays as zlib streams, which every browser and library unpacks.

Little-endian, in C order. zlib-ng writes them in a quarter to a half of the time that zlib takes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng


def pack_noisy(values: npt.NDArray[Any]) -> bytes:
    """Pack grey values or what is as uneven.

    Looking for runs alone gives less, in less time, than looking for repeats.
    """
    return _packed(values, 1, zlib_ng.Z_RLE)


def pack_sparse(values: npt.NDArray[Any]) -> bytes:
    """Pack what is 0, or another value, over large parts."""
    return _packed(values, 2, zlib_ng.Z_DEFAULT_STRATEGY)


def _packed(values: npt.NDArray[Any], level: int, strategy: int) -> bytes:
    packing = zlib_ng.compressobj(level, strategy=strategy)
    content = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data
    return bytes(packing.compress(content) + packing.flush())
