from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from oarlock.arrays import Mask
from oarlock.ct.series import SeriesHeader
from oarlock.organs.catalogue import BY_NAME
from oarlock.rtstruct.placing import rois_to_masks
from oarlock.rtstruct.reader import read_structure_set
from tests.fixtures.foreign import foreign, save
from tests.fixtures.organs import Series, write_series

BRAIN = BY_NAME["Brain"]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_series(tmp_path_factory.mktemp("series"))


@pytest.fixture
def header(series: Series) -> SeriesHeader:
    return series.header


@pytest.fixture
def brain(series: Series, tmp_path: Path) -> Callable[..., tuple[Mask, list[str]]]:
    """Lays the contours on the series: the mask, and the sentences of the warnings."""

    def lay(*contours: Dataset, **options: Any) -> tuple[Mask, list[str]]:
        path = save(foreign(series.header, *contours, **options), tmp_path / "foreign.dcm")
        masks, warnings = rois_to_masks(read_structure_set(path), series.header, {BRAIN: 7})
        return masks.mask(BRAIN), [warning.detail for warning in warnings]

    return lay
