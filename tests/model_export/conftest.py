"""A network and a scan small enough for a test; every test here needs torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if find_spec("torch") is None:  # test_needs.py alone is left, and says so
    collect_ignore_glob = ["test_[!n]*.py", "test_network.py"]

if TYPE_CHECKING:
    from model_export.config import Config
    from model_export.datasets.training_file import Case

CONFIGS = Path(__file__).parents[2] / "model_export" / "configs"

TINY: dict[str, dict[str, Any]] = {
    "grid": {"size": 32, "spacing_mm": [2.5, 10.0, 10.0]},
    "network": {"channels": [4, 5, 6, 6, 7, 7, 8], "bottom_width": 8},
    "training": {"slices": 3, "steps": 20, "bfloat16": False},
}
"""What shrinks the shipped config: 32 x 32 at 10 mm, a few channels, three slices."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch = pytest.importorskip("torch", reason="model_export needs torch: install the extra model-export")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Config:
    from model_export.config import read_config

    return read_config(CONFIGS / "hn_4mm.toml", TINY)


def made_case(
    *, channels: tuple[int, ...] = (15, 16, 18), source: str = "openkbp", name: str = "made", drawn: tuple[int, int] = (4, 20)
) -> Case:
    """A crooked scan of 31 x 29 x 37 voxels of 2.3 x 7.9 x 8.3 mm: an ellipse of tissue, a box of higher density for each organ.

    The organs are `drawn` from one slice up to before another. The first lies at small x (the patient's right), the second at
    large x, the third in the middle.
    """
    from model_export.datasets.training_file import Case, to_codes

    shape, spacing = (31, 29, 37), (2.3, 7.9, 8.3)
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    known = ((y - 14) / 13) ** 2 + ((x - 18) / 17) ** 2 < 1
    hu = np.where(known, 20.0, -1000.0)
    labels = np.zeros((len(channels), *shape), np.uint8)
    for index in range(len(channels)):
        left = (5, 27, 16)[index % 3]
        box = (x >= left) & (x < left + 5) & (y >= 11) & (y < 17) & (z >= drawn[0]) & (z < drawn[1])
        hu = np.where(box, 300.0 + 200 * index, hu)
        labels[index][box] = 17
    return Case(
        name=name,
        source=source,
        split="train",
        spacing_mm=spacing,
        ct=to_codes(hu, known),
        labels=labels,
        label_factor=1,
        label_full=1,
        channels=channels,
        labelled_slices=tuple((0, shape[0] - 1) for _ in channels),
    )
