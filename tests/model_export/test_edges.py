"""What edges that tissue draws are worth: the finer CT, and the table."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model_export.boxes.commands import EDGES
from model_export.edges import EdgeScore, on_finer_pixels, read_edges, to_table
from oarlock.segmentation.manifest import Edge, read_manifest
from oarlock.segmentation.manifest_file import EdgeTable

pytestmark = pytest.mark.slow  # the module loads torch


def test_finer_pixels_lie_between_the_same_edges_linearly() -> None:
    volume = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    places = [np.arange(2.0), *((np.arange(n * 4) + 0.5) / 4 - 0.5 for n in (5, 6))]
    expected = ndimage.map_coordinates(volume, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    assert on_finer_pixels(volume, 4) == pytest.approx(expected, abs=1e-5)


def test_the_table_gives_means_and_the_scan_that_gained_least() -> None:
    rows = [
        EdgeScore("A", "Brain", (0.90, 0.70), (0.92, 0.80), (0.98, 0.95)),
        EdgeScore("B", "Brain", (0.94, 0.80), (0.93, 0.82), None),
    ]
    assert to_table(rows).splitlines()[-1] == "| Brain | 2 | 0.920 (0.750) | 0.925 (0.810) | -0.010 (+0.020) | 0.980 (0.950) |"


def test_an_organ_that_no_radiographer_drew_has_an_empty_cell() -> None:
    assert to_table([EdgeScore("A", "Brain", (0.9, 0.7), (0.92, 0.8), None)]).endswith("| 0.920 (0.800) | +0.020 (+0.100) |  |")


def test_the_edges_that_ship_are_those_of_the_config() -> None:
    shipped = read_manifest(Path(__file__).parents[2] / "models" / "oarlock-hn")
    tables = {organ: EdgeTable.model_validate(table) for organ, table in read_edges(EDGES).items()}
    asked = {organ: Edge(table.hu, table.inwards_mm, table.outwards_mm) for organ, table in tables.items()}
    assert {oar.name: edge for oar, edge in shipped.edges.items()} == asked
