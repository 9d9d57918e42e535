"""Nothing is drawn outside of the patient, and nothing inside is lost for it."""

import numpy as np
import numpy.typing as npt
import pytest

from oarlock.geometry.body import body_mask, within_body

Volume = npt.NDArray[np.float32]

AIR, FOAM, TISSUE, BOARD = -1000.0, -850.0, 40.0, 100.0
CHEST, LUNGS = np.s_[:, 10:30, 8:40], np.s_[:, 14:26, 12:36]
CUSHION, TABLE = np.s_[:, 32:40, 4:44], np.s_[:, 42:44, :]


@pytest.fixture
def scan() -> Volume:
    """A chest with one hollow for its lungs, on foam on a table."""
    hu = np.full((6, 50, 48), AIR, np.float32)
    for place, value in ((CHEST, TISSUE), (LUNGS, FOAM), (CUSHION, FOAM), (TABLE, BOARD)):
        hu[place] = value
    return hu


def test_lungs_are_in_the_body_and_foam_and_table_are_not(scan: Volume) -> None:
    body = body_mask(scan)
    assert body[CHEST].all()
    assert not body[CUSHION].any()
    assert not body[TABLE].any()


def test_a_margin_of_one_voxel_leaves_the_surface_of_an_organ_at_the_skin_alone(scan: Volume) -> None:
    assert body_mask(scan)[:, 9:31, 10:30].all()
    assert not body_mask(scan)[:, 8].any()


def test_lungs_that_the_field_of_view_cuts_open_stay(scan: Volume) -> None:
    scan[:, :, 36:] = AIR  # what lies outside of the scan, up to the lungs
    assert body_mask(scan)[LUNGS][..., :-1].all()


def test_a_mirrored_scan_has_the_mirrored_body(scan: Volume) -> None:
    scan[:, 18:22, 30:44] = TISSUE
    assert np.array_equal(body_mask(scan[:, :, ::-1])[:, :, ::-1], body_mask(scan))


def test_a_scan_of_nothing_but_air_is_not_restricted() -> None:
    assert body_mask(np.full((2, 8, 8), AIR, np.float32)).all()


@pytest.mark.parametrize("upscale", [1, 2])
def test_what_is_claimed_outside_of_the_body_does_not_count(scan: Volume, upscale: int) -> None:
    def claims(slices: int) -> Volume:
        return np.full((2, slices, 50 * upscale, 48 * upscale), 0.9, np.float32)

    found = list(within_body([(0, claims(4)), (4, claims(2))], body_mask(scan)))
    assert [start for start, _ in found] == [0, 4]
    probabilities = np.concatenate([part for _, part in found], axis=1)[..., ::upscale, ::upscale]
    assert (probabilities[:, body_mask(scan)] == np.float32(0.9)).all()
    assert (probabilities[:, ~body_mask(scan)] == 0).all()
