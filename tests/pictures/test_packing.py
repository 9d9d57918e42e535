"""Whoever unpacks zlib streams unpacks ours."""

import zlib

import numpy as np
import pytest

from oarlock.pictures.packing import pack_noisy, pack_sparse

ARRAYS = {
    "words": np.repeat(np.arange(40, dtype=np.uint32) << 20, 50).reshape(40, 50),
    "other end first": np.arange(600, dtype=">u2").reshape(20, 30),
    "turned": np.random.default_rng(1).integers(0, 255, (30, 20), dtype=np.uint8).T,
    "nothing": np.zeros((0, 7), np.uint8),
}


@pytest.mark.parametrize("pack", [pack_noisy, pack_sparse])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_packed_array_is_its_little_endian_bytes_row_by_row(name: str, pack: object) -> None:
    values = ARRAYS[name]
    assert callable(pack)
    unpacked = np.frombuffer(zlib.decompress(pack(values)), values.dtype.newbyteorder("<"))
    assert np.array_equal(unpacked.reshape(values.shape), values)
