"""What tests of CT series share."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from oarlock.ct import pixel_reader
from oarlock.dicom.decoding import Decoder


@pytest.fixture(scope="package", autouse=True)
def _one_decoder() -> Iterator[None]:
    """A decoder needs more than half a second of CPU to start: a series takes over the process of the series before."""
    with pytest.MonkeyPatch.context() as patch, Decoder() as decoder:
        patch.setattr(pixel_reader, "Decoder", lambda: nullcontext(decoder))
        yield
