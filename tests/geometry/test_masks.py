import numpy as np
import pytest

from oarlock.geometry.components import largest_piece, to_pieces
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks, bounding_box
from oarlock.organs.catalogue import BY_NAME
from tests.fixtures.crooked import SHAPE, crooked_grid

BRAIN, EYE, CORD = BY_NAME["Brain"], BY_NAME["Eye_L"], BY_NAME["SpinalCord"]


@pytest.fixture
def masks() -> OARMasks:
    """Two organs that overlap and an empty one."""
    masks = OARMasks.empty([BRAIN, CORD, EYE], SHAPE)
    masks.bits[3:8, 10:30, 20:23] |= masks.bit(BRAIN)
    masks.bits[7:9, 28:40, 22:50] |= masks.bit(EYE)
    return masks


def test_the_volume_of_an_organ_is_that_of_its_voxels(masks: OARMasks) -> None:
    assert masks.volume_ml(BRAIN, crooked_grid()) == pytest.approx(5 * 20 * 3 * 2.5 * 1.1 * 0.9 / 1000)
    assert masks.volume_ml(CORD, crooked_grid()) == 0


def test_each_slice_counts_with_its_own_thickness(masks: OARMasks) -> None:
    grid = crooked_grid()
    origins = grid.origins_mm.copy()
    origins[8:, 2] += 2.0  # the slices on both sides of the gap stand for 1 mm more each
    uneven = Grid(grid.rows, grid.columns, origins, grid.row_direction, grid.column_direction, 1.1, 0.9)
    assert masks.volume_ml(BRAIN, uneven) == pytest.approx((5 * 2.5 + 1) * 20 * 3 * 1.1 * 0.9 / 1000)


def test_the_box_of_a_mask_is_the_box_of_the_organ(masks: OARMasks) -> None:
    for oar in masks.oars:
        assert bounding_box(masks.mask(oar)) == masks.boxes()[oar.name]
    assert masks.boxes() == {"Brain": np.s_[3:8, 10:30, 20:23], "SpinalCord": None, "Eye_L": np.s_[7:9, 28:40, 22:50]}


@pytest.mark.parametrize("second", [(1, 1, 1), (0, 1, 1)], ids=["corner", "edge"])
def test_voxels_that_share_no_face_are_one_piece_only_where_that_is_asked_for(second: tuple[int, int, int]) -> None:
    mask = np.zeros((3, 3, 3), dtype=np.bool_)
    mask[0, 0, 0] = mask[second] = True
    assert [to_pieces(mask, corners=corners)[1] for corners in (False, True)] == [2, 1]


def test_the_largest_piece_is_the_first_of_equals() -> None:
    mask = np.array([[1, 0, 1, 1, 0, 1, 1]], dtype=np.bool_)
    assert largest_piece(mask).tolist() == [[False, False, True, True, False, False, False]]
    assert not largest_piece(np.zeros((2, 2), dtype=np.bool_)).any()


@pytest.mark.parametrize("box", [np.s_[3:8, 10:30, 20:23], np.s_[0:9, 5:45, 15:55], np.s_[5:9, 12:20, 21:30]])
@pytest.mark.parametrize("kept", [0.0, 0.01, 1.0])
def test_boxes_that_are_known_are_the_organs_when_one_is_replaced(masks: OARMasks, box: tuple, kept: float) -> None:
    masks.boxes()
    new = np.random.default_rng(3).random(masks.bits[box].shape) < kept
    for oar in (BRAIN, CORD):  # one that was there, inside of the box or beyond it, and one that was empty
        masks.put_inside(oar, box, new)
    assert masks.boxes() == {oar.name: bounding_box(masks.bits & masks.bit(oar) != 0) for oar in masks.oars}
    assert masks.boxes() == OARMasks(masks.oars, masks.bits).boxes()
