"""What a check says can be written as JSON and read by a person."""

import numpy as np
import orjson
import pytest

from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import BY_NAME
from oarlock.qa.checks.anatomy import Anatomy
from oarlock.qa.plausibility import check_masks


def test_a_report_of_overlapping_organs_can_be_written_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's numbers are not JSON."""
    monkeypatch.setattr(Anatomy, "is_tiny", lambda *_: False)  # of organs as small as these nothing else is said
    oars = (BY_NAME["Brain"], BY_NAME["Bone_Mandible"])
    masks = OARMasks.empty(oars, (4, 40, 40))
    masks.bits[1:3, 10:20, 10:20] = masks.bit(oars[0]) | masks.bit(oars[1])
    origins = np.stack([np.zeros(4), np.zeros(4), np.arange(4) * 3.0], axis=1)
    grid = Grid(40, 40, origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.0, 1.0)
    checks = check_masks(masks, grid)
    assert "organs.overlap" in {check.code for check in checks}
    assert orjson.dumps([check.to_json() for check in checks])
