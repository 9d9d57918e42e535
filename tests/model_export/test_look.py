"""Pictures for a person's eye."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_export.look import draw, predict_volume
from tests.model_export.test_network import trained_looking

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.config import Config


def test_a_volume_is_predicted_whole_and_drawn(tiny: Config, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: install the extra model-export")
    ct_hu = np.full((23, 32, 32), 40.0, np.float32)
    masks = predict_volume(trained_looking(tiny), ct_hu, tiny.grid)
    assert masks.shape == (21, 23, 64, 64)
    draw(ct_hu, masks, tiny.grid, tmp_path / "look.png")
    assert (tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")
