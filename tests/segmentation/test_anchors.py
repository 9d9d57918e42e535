"""Where a box of fixed size lies, worked out by hand from what the found organs say."""

import numpy as np
import pytest

from oarlock.segmentation.anchors import AGREE_MM, Anchor, box_around, box_at


def anchor(x: float, y: float = 0.0, z: float = 0.0, *, share: float = 1.0, half_mm: float = 0.0) -> Anchor:
    middle = np.array([x, y, z])
    return Anchor(share, middle, middle - half_mm, middle + half_mm)


HERE = (0.0, 0.0, 0.0)


def test_an_offset_is_said_as_z_y_x_and_the_middle_is_the_mean() -> None:
    region, agreed = box_at([(anchor(30.0, 5.0, 2.0), (0.0, 16.0, -32.0)), (anchor(-30.0, 7.0, 4.0), (0.0, 16.0, 32.0))])
    assert agreed
    assert region.centre_mm.tolist() == [0.0, 22.0, 3.0]


@pytest.mark.parametrize(("apart_mm", "agreed", "x"), [(AGREE_MM - 0.1, True, 9.95), (AGREE_MM + 0.1, False, 20.1)])
def test_of_two_that_contradict_each_other_the_largest_for_its_kind_decides(apart_mm: float, agreed: bool, x: float) -> None:
    region, said = box_at([(anchor(0.0), HERE), (anchor(apart_mm, share=1.5), HERE)])
    assert said is agreed
    assert region.centre_mm[0] == pytest.approx(x)


def test_of_three_two_that_agree_outvote_a_larger_one() -> None:
    region, agreed = box_at([(anchor(0.0), HERE), (anchor(130.0, share=2.0), HERE), (anchor(6.0), HERE)])
    assert not agreed
    assert region.centre_mm[0] == pytest.approx(3.0)


def test_of_three_of_which_no_two_agree_the_largest_decides() -> None:
    region, agreed = box_at([(anchor(0.0), HERE), (anchor(60.0), HERE), (anchor(130.0, share=2.0), HERE)])
    assert not agreed
    assert region.centre_mm[0] == pytest.approx(130.0)


def test_a_box_of_any_size_holds_every_organ_and_the_margin() -> None:
    region = box_around([anchor(10.0, half_mm=2.0), anchor(-10.0, 4.0, 6.0, half_mm=3.0)], (1.0, 2.0, 3.0))
    assert region.low_mm.tolist() == [-16.0, -4.0, -3.0]
    assert region.high_mm.tolist() == [15.0, 9.0, 10.0]
