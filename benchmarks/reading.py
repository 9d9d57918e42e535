"""Reading a CT series: ours, pydicom, SimpleITK, and the floor.

The floor is reading the bytes alone; side by side in one run.

    python -m benchmarks.reading FOLDER [--rounds 7]

FOLDER holds one CT series, uncompressed for the comparison to mean something. Every round runs each way once, so that whatever
else the machine does falls on all of them; the table gives medians, and ratios to ours.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk  # noqa: N813  (its own convention)
from pydicom.pixels import apply_modality_lut

from oarlock.ct.intake import take_in
from oarlock.ct.rules import IntakeRules
from oarlock.ct.series import check_headers, read_ct_series

Volume = npt.NDArray[np.int16]


def ours(files: Sequence[Path]) -> Volume:
    return read_ct_series(check_headers(files)).hu


def ours_headers(files: Sequence[Path]) -> None:
    check_headers(files)


def ours_at_the_door(files: Sequence[Path]) -> None:
    """With a few slices' values, as the service answers a post."""
    take_in(files, IntakeRules())


def pydicom_bare(files: Sequence[Path]) -> None:
    """The yardstick: no sorting, no check, no Hounsfield units."""
    for path in files:
        _ = pydicom.dcmread(path).pixel_array


def pydicom_volume(files: Sequence[Path]) -> Volume:
    """What one writes with pydicom to get the same volume.

    Without any check.
    """
    slices = sorted((pydicom.dcmread(path) for path in files), key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    return np.stack([apply_modality_lut(dataset.pixel_array, dataset) for dataset in slices]).astype(np.int16)


def simpleitk(files: Sequence[Path]) -> Volume:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(files[0].parent)))
    return np.asarray(sitk.GetArrayFromImage(reader.Execute()), dtype=np.int16)


def raw_bytes(files: Sequence[Path]) -> None:
    for path in files:
        path.read_bytes()


WAYS: dict[str, Callable[[Sequence[Path]], Volume | None]] = {
    "bytes alone (floor)": raw_bytes,
    "ours: headers checked": ours_headers,
    "ours: taken in at the door": ours_at_the_door,
    "ours: checked, read, HU": ours,
    "pydicom: dcmread + pixel_array": pydicom_bare,
    "pydicom: sorted, HU, stacked": pydicom_volume,
    "SimpleITK: series reader": simpleitk,
}


def measure(files: Sequence[Path], rounds: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of every way.

    After one round that warms the page cache.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(rounds + 1):
        for name, way in WAYS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way(files)
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(wall for wall, _ in found[1:]), statistics.median(cpu for _, cpu in found[1:]))
        for name, found in times.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare the ways to read a CT series.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args(arguments)
    files = sorted(header.path for header in check_headers(sorted(p for p in chosen.folder.iterdir() if p.is_file())).instances)
    same = np.array_equal(ours(files), pydicom_volume(files)) and np.array_equal(ours(files), simpleitk(files))
    found = measure(files, chosen.rounds)
    cpu_of_ours = found["ours: checked, read, HU"][1]
    print(f"{len(files)} slices, {sum(p.stat().st_size for p in files) / 1e6:.0f} MB; the three volumes are equal: {same}")
    print(f"{'way':<34}{'wall s':>9}{'CPU s':>9}{'CPU / ours':>12}")
    for name, (wall, cpu) in found.items():
        print(f"{name:<34}{wall:>9.3f}{cpu:>9.3f}{cpu / cpu_of_ours:>12.2f}")


if __name__ == "__main__":
    main()
