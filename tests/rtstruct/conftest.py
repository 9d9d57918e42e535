from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from oarlock.arrays import Mask
from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import write_ct_series
from oarlock.rtstruct.placing import Budget, PlacedROIs, rois_to_masks
from oarlock.rtstruct.reader import read_structure_set
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.fixtures.foreign import foreign, save
from tests.fixtures.organs import Series, write_series

BRAIN = BY_NAME["Brain"]


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return write_series(tmp_path_factory.mktemp("series"))


@pytest.fixture
def header(series: Series) -> SeriesHeader:
    return series.header


@pytest.fixture(scope="session")
def tall(tmp_path_factory: pytest.TempPathFactory) -> SeriesHeader:
    """37 slices of the crooked grid."""
    return check_headers(write_ct_series(tmp_path_factory.mktemp("tall"), crooked_hu(), crooked_grid(), seed="tall"))


@pytest.fixture
def place(series: Series, tmp_path: Path) -> Callable[..., PlacedROIs]:
    """Lays contours on the series as those of a brain."""

    def lay(*contours: Dataset, budget: Budget | None = None, on: SeriesHeader = series.header, **options: Any) -> PlacedROIs:
        path = save(foreign(on, *contours, **options), tmp_path / "foreign.dcm")
        return rois_to_masks(read_structure_set(path), on, {BRAIN: 7}, budget)

    return lay


@pytest.fixture
def brain(place: Callable[..., PlacedROIs]) -> Callable[..., tuple[Mask, list[str]]]:
    """Lays contours on the series as those of a brain: the mask, and the sentences of the warnings."""

    def lay(*contours: Dataset, **options: Any) -> tuple[Mask, list[str]]:
        masks, warnings, *_ = place(*contours, **options)
        return masks.mask(BRAIN), [warning.detail for warning in warnings]

    return lay
