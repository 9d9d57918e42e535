"""Writes CT series of any volume on any grid.

For phantoms and tests.

Nothing here comes from a patient. The files are valid CT Image Storage (PS3.3 A.3) and are told apart from a scanner's by their
manufacturer and description.
"""

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from oarlock.arrays import FloatArray, Int16Array
from oarlock.geometry.grid import Grid

_NAMESPACE: Final = uuid.UUID("5f0a3d0e-6d6f-4a3e-9a51-0a41c0c7a7ce")
_INTERCEPT_HU: Final = -1024
_DATE: Final = "20260102"
_TIME: Final = "030405"


def write_ct_series(
    folder: Path,
    hu: Int16Array,
    grid: Grid,
    *,
    seed: str = "phantom",
    patient_name: str = "Phantom^Oarlock",
    specific_character_set: str = "ISO_IR 192",
    overrides: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write one CT Image Storage file per slice.

    In Explicit VR Little Endian, 16 bits signed.

    Instance numbers run from head to foot and file names follow nothing, so a reader that sorts by either of them gets the slices
    upside down or shuffled, as with a real scanner.

    :param folder: made if it is missing.
    :param hu: (z, y, x) Hounsfield units, at most 31743.
    :param grid: of the same shape; gives Image Position and Orientation (Patient) and the spacings.
    :param seed: all UIDs (under 2.25) and the file names follow from it: the same seed, the same files.
    :param overrides: keyword to value, set on every instance at the end; a value of None removes the element.
    :returns: paths; the one at index z holds slice z of the grid.
    """
    if hu.shape != grid.shape:
        raise ValueError(f"the volume has shape {hu.shape} and the grid {grid.shape}")
    if int(hu.max()) - _INTERCEPT_HU > np.iinfo(np.int16).max:
        raise ValueError("a value is too large to be stored with the rescale intercept")
    folder.mkdir(parents=True, exist_ok=True)
    instance = _series(grid, seed)
    instance.SpecificCharacterSet = specific_character_set
    instance.PatientName = patient_name
    for keyword, value in _of_slice(hu[0], grid, 0, seed).items():
        setattr(instance, keyword, value)
    _override(instance, overrides or {})
    paths = [folder / f"{hashlib.sha256(f'{seed}/{z}'.encode()).hexdigest()[:12]}.dcm" for z in range(len(hu))]
    instance.save_as(paths[0], enforce_file_format=True)
    common = dcmread(paths[0])  # its sixty elements are encoded once, not once for each slice
    for z in range(1, len(hu)):
        for keyword, value in _of_slice(hu[z], grid, z, seed).items():
            if keyword not in (overrides or {}):
                common[keyword].value = value
        common.file_meta.MediaStorageSOPInstanceUID = common.SOPInstanceUID
        common.save_as(paths[z], enforce_file_format=True)
    return paths


def _series(grid: Grid, seed: str) -> Dataset:
    """What all slices have in common, of the modules of PS3.3 Table A.3-1."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    _describe_patient_and_study(dataset, seed)
    _describe_series(dataset, seed)
    _describe_planes(dataset, grid)
    _describe_pixels(dataset, grid)
    return dataset


def _of_slice(hu: Int16Array, grid: Grid, z: int, seed: str) -> dict[str, Any]:
    """What a slice has for itself, by keyword."""
    return {
        "SOPInstanceUID": _uid(seed, "instance", str(z)),
        "InstanceNumber": len(grid.origins_mm) - z,
        "ImagePositionPatient": _decimal(grid.origins_mm[z]),
        "SliceLocation": _decimal(grid.slice_positions_mm[z : z + 1])[0],
        "PixelData": (hu - np.int16(_INTERCEPT_HU)).astype("<i2").tobytes(),
    }


def _describe_patient_and_study(dataset: Dataset, seed: str) -> None:
    dataset.PatientID = "PHANTOM"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = _uid(seed, "study")
    dataset.StudyDate = _DATE
    dataset.StudyTime = _TIME
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.AccessionNumber = ""
    dataset.StudyDescription = "PHANTOM, not a patient"


def _describe_series(dataset: Dataset, seed: str) -> None:
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = _uid(seed, "series")
    dataset.SeriesNumber = 2
    dataset.SeriesDate = _DATE
    dataset.SeriesTime = _TIME
    dataset.SeriesDescription = "PHANTOM head and neck"
    dataset.BodyPartExamined = "HEADNECK"
    dataset.Manufacturer = "Oarlock"
    dataset.ManufacturerModelName = "Phantom"
    dataset.FrameOfReferenceUID = _uid(seed, "frame of reference")
    dataset.PositionReferenceIndicator = ""


def _describe_planes(dataset: Dataset, grid: Grid) -> None:
    """Image Plane (PS3.3 C.7.6.2) and what the CT Image module says about the acquisition."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AcquisitionNumber = 1
    dataset.ContentDate = _DATE
    dataset.ContentTime = _TIME
    dataset.PatientPosition = _patient_position(grid)
    dataset.ImageOrientationPatient = _decimal(np.concatenate([grid.row_direction, grid.column_direction]))
    dataset.PixelSpacing = _decimal(np.array([grid.row_spacing_mm, grid.column_spacing_mm]))
    dataset.SliceThickness = _decimal(np.array([grid.spacing_mm[0]]))[0]
    dataset.KVP = 120


def _describe_pixels(dataset: Dataset, grid: Grid) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = grid.rows, grid.columns
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept = _INTERCEPT_HU
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter = 40
    dataset.WindowWidth = 400


def _override(dataset: Dataset, overrides: Mapping[str, Any]) -> None:
    for keyword, value in overrides.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)


def _patient_position(grid: Grid) -> str:
    """Patient Position (PS3.3 C.7.3.1.1.2) of such a grid: its columns run down to the couch."""
    x, y, _ = grid.column_direction
    lying = ("S" if y >= 0 else "P") if abs(y) >= abs(x) else ("DL" if x > 0 else "DR")
    return ("HF" if grid.normal[2] >= 0 else "FF") + lying


def _decimal(values: FloatArray) -> list[DSfloat]:
    """Numbers as Decimal Strings of at most 16 characters (PS3.5 6.2)."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def _uid(*parts: str) -> str:
    """A UID under 2.25 (PS3.5 B.2) that follows from its parts."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(parts)).int}"
