"""Where the slices of a series lie, kept beside its contours.

So contours can be laid on it without its images.

A clinician's contours come back days after the upload was deleted. The file holds planes and UIDs, no pixels, and of the patient
nothing; it lies with the results of its job and goes with them.
"""

from pathlib import Path

import numpy as np
import orjson
from pydicom.dataset import Dataset

from oarlock.ct.series import Instance, SeriesHeader
from oarlock.geometry.grid import Grid


def write_series_geometry(path: Path, header: SeriesHeader) -> None:
    """Write the geometry of a series."""
    grid = header.grid
    content = {
        "study_instance_uid": header.study_instance_uid,
        "series_instance_uid": header.series_instance_uid,
        "frame_of_reference_uid": header.frame_of_reference_uid,
        "scanner": header.scanner,
        "rows": grid.rows,
        "columns": grid.columns,
        "origins_mm": grid.origins_mm.tolist(),
        "row_direction": grid.row_direction.tolist(),
        "column_direction": grid.column_direction.tolist(),
        "row_spacing_mm": grid.row_spacing_mm,
        "column_spacing_mm": grid.column_spacing_mm,
        "instances": [[one.sop_instance_uid, one.sop_class_uid, one.position, one.frame, one.frames] for one in header.instances],
    }
    path.write_bytes(orjson.dumps(content))


def read_series_geometry(path: Path) -> SeriesHeader:
    """The series on exactly the same grid, and no more.

    Without its files, pixels, patient and warnings.
    """
    content = orjson.loads(path.read_bytes())
    grid = Grid(
        rows=content["rows"],
        columns=content["columns"],
        origins_mm=np.array(content["origins_mm"]),
        row_direction=np.array(content["row_direction"]),
        column_direction=np.array(content["column_direction"]),
        row_spacing_mm=content["row_spacing_mm"],
        column_spacing_mm=content["column_spacing_mm"],
    )
    instances = [
        Instance(Path(), sop_instance, sop_class, position, frame=frame, frames=frames)
        for sop_instance, sop_class, position, frame, frames in content["instances"]
    ]
    return SeriesHeader(
        study_instance_uid=content["study_instance_uid"],
        series_instance_uid=content["series_instance_uid"],
        frame_of_reference_uid=content["frame_of_reference_uid"],
        grid=grid,
        instances=tuple(instances),
        structure_sets=(),
        template=Dataset(),
        warnings=(),
        scanner=content["scanner"],
    )
