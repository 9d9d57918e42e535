from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.progress import Kept
from model_export.transferred.atlases import Atlas, Share, mirror_image, share_centre_mm, share_known
from model_export.transferred.coarse import CoarseModel
from model_export.transferred.eyes import mean_eye, refined_eye
from model_export.transferred.make import CENTRES, landmarks_of, read_centres, seen, vote_grid
from model_export.transferred.neighbourhoods import ORBITS
from model_export.transferred.scans import Scan, centre_mm
from model_export.transferred.votes import TransferredScan, Votes, agreement, fused, read_transferred, write_transferred

pytestmark = pytest.mark.slow

SPACING = (3.0, 3.9, 4.1)
SHAPE = (26, 30, 41)
NARROW = ((30.0, 30.0, 30.0), (30.0, 30.0, 30.0))
MARGIN = ((60.0, 60.0, 60.0), (60.0, 60.0, 60.0))
LEFT, RIGHT = (115.0, 45.0, 38.0), (52.0, 47.0, 40.0)


def made_head(*eyes: tuple[float, float, float]) -> Scan:
    """Fat with a ball of water of 12 mm around each eye's middle (x, y, z) in mm, and bone on its outer side."""
    z, y, x = (np.arange(n).reshape([-1 if i == axis else 1 for i in range(3)]) * SPACING[axis] for axis, n in enumerate(SHAPE))
    hu = np.full(SHAPE, -100.0, np.float32)
    middle = float(np.mean([eye[0] for eye in eyes]))
    for eye in eyes:
        squares = (x - eye[0]) ** 2 + (y - eye[1]) ** 2 + (z - eye[2]) ** 2
        hu[squares < 12.0**2] = 10.0
        outwards = np.sign(eye[0] - middle)
        hu[np.broadcast_to((np.abs(x - eye[0] - 17.0 * outwards) < 3.0) & (squares < 30.0**2), SHAPE)] = 400.0
    return Scan("made", "train", hu, np.ones(SHAPE, np.bool_), SPACING, {})


def votes_of(shares: np.ndarray, correlations: tuple[float, ...]) -> Votes:
    cases = tuple("abc"[: len(correlations)])
    return Votes((shares * 255).astype(np.uint8), (0, 0, 0), cases, correlations)


def test_an_eye_is_found_from_a_guess_that_is_a_centimetre_off() -> None:
    head = made_head(LEFT, RIGHT)
    picture = mean_eye([(head, LEFT, "Eye_L"), (head, RIGHT, "Eye_R")])
    for middle, name in ((LEFT, "Eye_L"), (RIGHT, "Eye_R")):
        found = refined_eye(head, (middle[0] - 6.0, middle[1] + 7.0, middle[2] + 4.0), name, picture)
        assert found is not None
        assert found[0] == pytest.approx(middle, abs=1.0)


def test_an_eye_that_is_not_there_is_refused() -> None:
    head = made_head(LEFT, RIGHT)
    picture = mean_eye([(head, LEFT, "Eye_L"), (head, RIGHT, "Eye_R")])
    plain = Scan("plain", "train", np.full(SHAPE, -100.0, np.float32), head.known, SPACING, {})
    assert refined_eye(plain, LEFT, "Eye_L", picture) is None
    cut = head.known.copy()
    cut[:, :, 28:] = False
    assert refined_eye(Scan("cut", "train", head.hu, cut, SPACING, {}), LEFT, "Eye_L", picture) is None


def test_a_scan_without_both_eyes_is_refused_with_a_reason() -> None:
    head = made_head(LEFT, RIGHT)
    picture = mean_eye([(head, LEFT, "Eye_L"), (head, RIGHT, "Eye_R")])
    found = landmarks_of(head, {"Eye_L": LEFT, "Eye_R": RIGHT, "Brainstem": (80.0, 100.0, 30.0)}, picture)
    assert isinstance(found, dict)
    assert found["Brainstem"] == (80.0, 100.0, 30.0)
    assert landmarks_of(head, {"Eye_L": LEFT}, picture) == "Eye_R is not seen"
    assert landmarks_of(head, {"Eye_L": LEFT, "Eye_R": RIGHT}, picture) == "the brainstem is not seen"


def test_votes_are_cut_at_their_median_volume_and_the_better_fit_weighs_more() -> None:
    shares = np.zeros((3, 1, 1, 12))
    shares[0, 0, 0, 2:6] = shares[1, 0, 0, 2:7] = 1.0
    shares[2, 0, 0, 1:7] = 1.0
    label = fused(votes_of(shares, (0.5, 0.5, 0.3)))
    assert label is not None
    assert np.flatnonzero(label >= 0.5).tolist() == [2, 3, 4, 5, 6]  # five, as the middle one of 4, 5 and 6
    assert label.max() <= 1.0


def test_votes_that_fit_badly_or_disagree_are_refused() -> None:
    shares = np.zeros((2, 1, 1, 12))
    shares[0, 0, 0, 2:6] = shares[1, 0, 0, 2:6] = 1.0
    assert fused(votes_of(shares, (0.1, 0.15))) is None
    apart = np.zeros((3, 1, 1, 12))
    apart[0, 0, 0, 0:2] = apart[1, 0, 0, 5:7] = apart[2, 0, 0, 9:11] = 1.0
    assert agreement(apart, apart[0] > 0) == 0.0
    assert fused(votes_of(apart, (0.4, 0.4, 0.4))) is None


def test_an_atlas_can_be_left_out_of_what_is_fused() -> None:
    shares = np.zeros((2, 1, 1, 12))
    shares[0, 0, 0, 2:6] = shares[1, 0, 0, 3:8] = 1.0
    alone = votes_of(shares, (0.4, 0.5)).without({"a"})
    assert alone.cases == ("b",)
    label = fused(alone)
    assert label is not None
    assert np.flatnonzero(label >= 0.5).tolist() == [3, 4, 5, 6, 7]


def test_a_file_gives_back_its_votes(tmp_path: Path) -> None:
    votes = votes_of(np.ones((2, 3, 4, 5)), (0.4, 0.5))
    write_transferred(tmp_path / "pt_1.npz", TransferredScan("pt_1", {"Eye_L": LEFT}, {"Eye_L": votes}))
    read = read_transferred(tmp_path / "pt_1.npz")
    assert read.landmarks == {"Eye_L": LEFT}
    assert np.array_equal(read.votes["Eye_L"].shares, votes.shares)
    assert read.votes["Eye_L"].correlations == (0.4, 0.5)


def test_a_mirrored_atlas_has_its_organs_on_the_other_side() -> None:
    scan = made_head(LEFT, RIGHT)
    share = Share(np.ones((3, 8, 10), np.float32), (4, 20, 100))
    atlas = Atlas("case", is_mirrored=False, scan=scan, shares={"Eye_L": share}, neighbourhood=ORBITS)
    mirrored = mirror_image(atlas)
    assert list(mirrored.shares) == ["Eye_R"]
    width_mm = (SHAPE[2] - 1) * SPACING[2]
    x, y, z = share_centre_mm(share, scan)
    assert share_centre_mm(mirrored.shares["Eye_R"], scan) == pytest.approx((width_mm - x, y, z))
    assert mirror_image(mirrored).shares["Eye_L"].first == share.first


def test_a_fine_organs_middle_and_known_part_are_those_of_the_voxels_it_lies_in() -> None:
    scan = made_head(LEFT, RIGHT)
    share = Share(np.ones((2, 4, 8), np.float32), (4, 20, 100))  # rows 5, columns 25 and 26 of the scan
    assert share_centre_mm(share, scan) == pytest.approx((25.5 * 4.1, 5.0 * 3.9, 4.5 * 3.0))
    mask = np.zeros(SHAPE, np.bool_)
    mask[4:6, 5, 25:27] = True
    assert share_centre_mm(share, scan) == pytest.approx(centre_mm(mask, SPACING))
    known = np.ones(SHAPE, np.bool_)
    known[:, :, 26:] = False
    assert share_known(Scan("cut", "train", scan.hu, known, SPACING, {}), share) == pytest.approx(0.5)


def test_a_right_anchor_reaches_as_far_as_the_left_one_mirrored() -> None:
    low, high = ORBITS.reach_of("Eye_L")
    low_r, high_r = ORBITS.reach_of("Eye_R")
    assert (low_r[0], high_r[0]) == (-high[0], -low[0])
    assert (low_r[1:], high_r[1:]) == (low[1:], high[1:])


def test_an_atlas_is_laid_on_a_shifted_scan_and_its_organ_lands_on_the_anchor() -> None:
    sitk = pytest.importorskip("SimpleITK", reason="model_export needs SimpleITK: install the extra model-export")
    from model_export.transferred.registration import anchored, carried, lay_on, surroundings
    from model_export.transferred.scans import to_image

    shift = (8.0, -6.0, 3.0)
    moving = made_head(LEFT, RIGHT)
    fixed = made_head(*(tuple(a + b for a, b in zip(eye, shift, strict=True)) for eye in (LEFT, RIGHT)))
    stem = (84.0, 90.0, 36.0)
    marks = [LEFT, RIGHT, stem]
    near = [tuple(a + b + 2.0 for a, b in zip(mark, shift, strict=True)) for mark in marks]  # 2 mm off along each axis
    transform, correlation = lay_on(surroundings(fixed, near, NARROW), surroundings(moving, marks, NARROW, slack_mm=40.0))
    assert correlation > 0.8
    there = transform.TransformPoint([a + b for a, b in zip(LEFT, shift, strict=True)])
    assert there == pytest.approx(LEFT, abs=1.5)

    one, part = (near[2],), (marks[2],)  # one landmark, and a half of the voxels
    shifted, _ = lay_on(surroundings(fixed, one, MARGIN), surroundings(moving, part, MARGIN, slack_mm=40.0), compared=0.5)
    assert shifted.TransformPoint([a + b for a, b in zip(LEFT, shift, strict=True)]) == pytest.approx(LEFT, abs=2.0)

    here = (120.0, 40.0, 40.0)
    organ = to_image(np.pad(np.ones((3, 12, 12), np.float32), 2), SPACING, first=(10, 38, 104), factor=4)
    middle = organ.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in organ.GetSize()])
    image, first = vote_grid(fixed, here, ((-30.0, -30.0, -25.0), (30.0, 30.0, 25.0)))
    same = anchored(sitk.AffineTransform(3), here, middle)
    share = carried({"Eye_L": organ}, same, image)["Eye_L"]
    assert share_centre_mm(Share(share, first), fixed) == pytest.approx(here, abs=0.1)


class OneLook(CoarseModel):
    """A coarse model that can be asked once."""

    def __init__(self) -> None:
        self.looks = 0

    def centres(self, scan: Scan) -> dict[str, tuple[float, float, float]]:
        self.looks += 1
        return {"Brainstem": (1.0, 2.0, 3.0 + self.looks)}


def test_what_the_coarse_model_saw_is_kept_and_read_for_the_boxes(tmp_path: Path) -> None:
    scan, model = Scan("pt_1", "train", np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.bool_), SPACING, {}), OneLook()
    for _ in range(2):
        kept = Kept(tmp_path / CENTRES, work="a model")
        assert seen(scan, model, kept) == {"Brainstem": (1.0, 2.0, 4.0)}
    assert read_centres(tmp_path) == {"pt_1": {"Brainstem": (1.0, 2.0, 4.0)}}
    assert read_centres(tmp_path / "none") == {}
