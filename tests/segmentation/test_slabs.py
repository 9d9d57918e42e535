import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oarlock.segmentation.manifest import InputSpec
from oarlock.segmentation.slabs import Volume, predict_in_slabs, slab_for


def spec(context_slices: int) -> InputSpec:
    return InputSpec("hu", None, None, context_slices, padding_hu=-1000.0)


class Counting:
    """A predictor that is valid along z: each answer is a weighted sum of its own context, in an order that counts."""

    def __init__(self, context_slices: int) -> None:
        self.context_slices, self.predicted, self.largest = context_slices, 0, 0

    def __call__(self, hu: Volume) -> Volume:
        n = hu.shape[2] - self.context_slices + 1
        self.predicted += n
        self.largest = max(self.largest, hu.shape[2])
        answer = np.zeros((1, 2, n, *hu.shape[3:]), np.float32)
        for k in range(self.context_slices):
            answer[:, 0] += np.float32(k + 1) * hu[:, 0, k : k + n]
            answer[:, 1] -= np.float32(k * k) * hu[:, 0, k : k + n]
        return answer


@given(slices=st.integers(1, 40), slab=st.integers(1, 45), half=st.integers(0, 4), seed=st.integers(0, 2**31))
def test_slabs_give_exactly_what_one_pass_gives_and_predict_nothing_twice(slices: int, slab: int, half: int, seed: int) -> None:
    context = 2 * half + 1
    volume = np.random.default_rng(seed).normal(0, 500, (slices, 3, 5)).astype(np.float32)
    sliding = Counting(context)
    pieces = list(predict_in_slabs(volume, sliding, spec(context), slab=slab))
    padded = np.pad(volume, [(half, half), (0, 0), (0, 0)], constant_values=-1000.0)
    assert np.array_equal(
        np.concatenate([probabilities for _, probabilities in pieces], axis=1), Counting(context)(padded[None, None])[0]
    )
    assert [start for start, _ in pieces] == list(range(0, slices, slab))
    assert sliding.predicted == slices
    assert sliding.largest <= slab + context - 1


def test_progress_is_the_share_of_slices_that_are_done() -> None:
    told: list[float] = []
    volume = np.zeros((10, 2, 2), np.float32)
    list(predict_in_slabs(volume, Counting(3), spec(3), slab=4, progress=told.append))
    assert told == [0.4, 0.8, 1.0]


def test_of_slabs_side_by_side_the_last_is_still_predicted_when_all_are_said_to_be_begun() -> None:
    had: list[int] = []
    told: list[list[int]] = []
    volume = np.zeros((12, 2, 2), np.float32)
    slabs = predict_in_slabs(volume, Counting(3), spec(3), slab=3, at_once=2, all_begun=lambda: told.append(had.copy()))
    for start, _ in slabs:
        had.append(start)
    assert told == [[0, 3, 6]]


def test_a_predictor_that_answers_with_other_slices_is_not_believed() -> None:
    with pytest.raises(ValueError, match="gave 6 slices for 4"):
        list(predict_in_slabs(np.zeros((4, 2, 2), np.float32), Counting(1), spec(3), slab=4))


@pytest.mark.parametrize("size_yx", [(96, 96), (128, 128), (256, 256), (512, 512)])
def test_a_slab_is_bounded_by_its_voxels(size_yx: tuple[int, int]) -> None:
    slab = slab_for(size_yx, 21)
    voxels = (slab + 20) * size_yx[0] * size_yx[1]
    assert slab == 4 or (4 < slab <= 38 and voxels <= 1_000_000)


@pytest.mark.parametrize(
    ("slices", "thick"), [(149, [38, 38, 38, 35]), (38, [38]), (39, [20, 19]), (1, [1]), (77, [26, 26, 25]), (114, [38, 38, 38])]
)
def test_slabs_are_as_thick_as_each_other(slices: int, thick: list[int]) -> None:
    """None is left over that costs its context for a few slices."""
    volume = np.zeros((slices, 96, 96), np.float32)
    spans = [len(answer[0]) for _, answer in predict_in_slabs(volume, Counting(21), spec(21))]
    assert spans == thick
