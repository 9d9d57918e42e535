"""The upper brain by rule: found where the skull encloses nothing else, left alone where anything is doubtful."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_export.datasets.plain_brain import plain_brain, with_plain_brain
from model_export.datasets.training_file import CHANNEL, Case, to_codes
from tests.model_export.conftest import made_case

pytestmark = pytest.mark.slow

SHAPE, SPACING = (30, 70, 60), (3.0, 4.0, 4.0)
ORBITS_END, VERTEX = 12, 28


def head(*, inside_hu: float = 35.0, sinus: bool = False, cut_at: int = 0, couch: bool = False, gap: int = 0) -> Case:
    """A dome of bone around brain, with a face of soft tissue in front of it below slice 12; y to the back."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    dome = np.clip(1.0 - ((z - 10) / (VERTEX - 10)) ** 2, 0.0, 1.0) ** 0.5
    distance = np.hypot((y - 40) / 22, (x - 30) / 18)
    skin, skull, brain = distance < dome + 0.04, distance < dome - 0.02, distance < dome - 0.18
    face = (z < ORBITS_END) & (np.hypot((y - 20) / 18, (x - 30) / 20) < 1)
    hu = np.where(skin | face, 20.0, -1000.0)
    hu = np.where(skull, 800.0, hu)
    hu = np.where(brain, inside_hu, hu)
    if sinus:  # an air cell within the frontal bone, open to the brain's side of it
        hu = np.where(skull & (y < 25) & (abs(x - 30) < 6) & (z < 20), -900.0, hu)
    if gap:
        hu = np.where(skull & ~brain & (abs(x - 30) < gap), 20.0, hu)
    if couch:
        hu = np.where(y > 66, 100.0, hu)
    return replace(made_case(), ct=to_codes(hu, y >= cut_at), labels=np.zeros((3, *SHAPE), np.uint8), spacing_mm=SPACING)


@pytest.mark.parametrize("case", [head(), head(couch=True)], ids=["alone", "on a couch"])
def test_the_brain_above_the_orbits_becomes_a_label_in_those_slices_only(case: Case) -> None:
    found = with_plain_brain(case)
    assert found.channels[-1] == CHANNEL["Brain"]
    first, last = found.labelled_slices[-1]
    assert ORBITS_END <= first <= ORBITS_END + 1
    assert VERTEX - 4 <= last < VERTEX
    brain = found.labels[-1] > 0
    assert not brain[:first].any()
    assert not brain[last + 1 :].any()
    inside = (abs(case.hu() - 35.0) < 5.0)[first : last + 1]
    assert (brain[first : last + 1] & inside).sum() > 0.97 * inside.sum()
    assert not (brain & (case.hu() > 200.0)).any()


def test_a_frontal_sinus_is_not_brain() -> None:
    found = plain_brain(head(sinus=True))
    assert found is not None
    assert (head(sinus=True).hu()[found[0]] > -100.0).all()


@pytest.mark.parametrize(
    "case",
    [head(inside_hu=-400.0), head(cut_at=30), head(gap=4)],
    ids=["not brain inside", "the head is cut", "the skull is open"],
)
def test_what_is_doubtful_stays_unlabelled(case: Case) -> None:
    assert plain_brain(case) is None
    assert with_plain_brain(case) is case


def test_a_brain_that_experts_drew_is_not_touched() -> None:
    drawn = replace(head(), channels=(CHANNEL["Brain"], CHANNEL["Lens_L"], CHANNEL["SpinalCord"]))
    assert with_plain_brain(drawn) is drawn
