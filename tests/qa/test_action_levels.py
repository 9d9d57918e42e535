"""Action levels: what passes, what fails, and what is not judged."""

import pytest

from oarlock.qa.action_levels import all_pass, failures

LEVELS = {"surface_dsc": 0.85, "hausdorff_95_mm": 8.0}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"surface_dsc": 0.85, "hausdorff_95_mm": 8.0}, ()),
        ({"surface_dsc": 0.84996, "hausdorff_95_mm": 8.00004}, ()),  # as printed: 0.85 and 8.0
        ({"surface_dsc": 0.8499, "hausdorff_95_mm": 8.0}, ("surface_dsc",)),
        ({"surface_dsc": 0.85, "hausdorff_95_mm": 8.1}, ("hausdorff_95_mm",)),
        ({"surface_dsc": None, "hausdorff_95_mm": 9.0}, ("hausdorff_95_mm",)),
        ({"surface_dsc": None, "hausdorff_95_mm": None}, None),
    ],
)
def test_a_number_fails_beyond_its_level_as_it_is_printed(
    numbers: dict[str, float | None], expected: tuple[str, ...] | None
) -> None:
    assert failures(LEVELS, numbers, missed=False) == expected


def test_an_organ_that_was_missed_fails_every_level_and_without_levels_nothing_is_judged() -> None:
    nothing = dict.fromkeys(LEVELS)
    assert failures(LEVELS, nothing, missed=True) == tuple(LEVELS)
    assert failures({}, nothing, missed=True) is None


def test_what_is_not_judged_neither_passes_nor_fails() -> None:
    assert [all_pass(found) for found in ([None, True], [None, False, True], [None], [])] == [True, False, None, None]
