"""Comparing: two RTSTRUCTs on a series to the report of ``oarlock qa``, while the sender waits."""

from pathlib import Path
from typing import Final

from oarlock.comparison import Drawing, compare_drawings, read_drawing
from oarlock.errors import StructureSetError
from oarlock.qa import QAReport
from oarlock.series import SeriesHeader, check_headers
from oarlock.settings import Settings
from service.uploads import Upload

AT_ONCE: Final = 2
"""How many comparisons a service makes at the same time: each holds two words a voxel of its series (docs/operations.md)."""


def compare_upload(upload: Upload, settings: Settings) -> QAReport:
    """Compare the two RTSTRUCTs of an upload.

    :raises SeriesError: if the files are not one CT series.
    :raises StructureSetError: if an RTSTRUCT cannot be used; its sentence names the part.
    """
    header = check_headers(upload.files, max_slices=settings.max_slices)
    predicted, reference = (read_part(name, upload.parts[name], header, settings) for name in ("predicted", "reference"))
    return compare_drawings(predicted, reference, header, settings.site)


def read_part(name: str, path: Path, header: SeriesHeader, settings: Settings) -> Drawing:
    """What the RTSTRUCT in one part of an upload draws on a series.

    :raises StructureSetError: if it cannot be used; its sentence names the part.
    """
    try:
        return read_drawing(path, header, settings.site)
    except StructureSetError as error:
        error.detail = f"Part '{name}': {error.detail}"
        raise
