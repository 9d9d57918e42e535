"""The shipped model on a real scan that is changed as hospitals' scans differ: graceful, and nothing invented."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oarlock.geometry.masks import OARMasks
from oarlock.inference.models import load
from oarlock.organs.catalogue import BY_NAME
from oarlock.segmentation.manifest import read_manifest
from oarlock.segmentation.segment import Model
from tools.studies.robustness import VARIANTS, Scan, dice, differing_share, draw, read_scan

pytestmark = pytest.mark.slow

SHIPPED = Path(__file__).parents[2] / "models" / "oarlock-hn"
BY_A_BOX = {("noise 20 HU", "Parotid_L"): 0.95, ("noise 20 HU", "Parotid_R"): 0.95, ("-50 HU", "Parotid_R"): 0.74}
"""Where a parotid that a box draws moves more than a large organ of the whole-scan network."""

PLAIN = ("Brain", "Brainstem", "Bone_Mandible", "Lung_L", "Lung_R", "Parotid_L", "Parotid_R", "SpinalCanal", "SpinalCord")
"""Organs that the model finds whole on this scan."""

OF_THE_HEAD = ("Brain", "Brainstem", "Eye_L", "Eye_R", "Lens_L", "Lens_R", "OpticNrv_L", "OpticNrv_R")


@pytest.fixture(scope="module")
def model() -> Model:
    return load(read_manifest(SHIPPED), device="cpu")


@pytest.fixture(scope="module")
def scan(siemens_series: Path) -> Scan:
    return read_scan(siemens_series)


@pytest.fixture(scope="module")
def base(scan: Scan, model: Model) -> OARMasks:
    return draw(scan, model)


@pytest.mark.long("shipped")
def test_a_mirrored_scan_gets_the_mirrored_contours(scan: Scan, model: Model, base: OARMasks) -> None:
    changed = VARIANTS["mirrored"](scan, base)
    assert differing_share(draw(changed.scan, model), changed.reference) <= 0.01


@pytest.mark.long("shipped")
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("noise 20 HU", 0.97),
        ("+50 HU", 0.85),
        ("-50 HU", 0.75),
        ("smoother", 0.88),
        ("sharper", 0.85),
        ("5 mm", 0.9),
        ("couch", 0.95),
    ],
)
def test_what_hospitals_do_to_a_scan_moves_no_large_organ(
    name: str, least: float, scan: Scan, model: Model, base: OARMasks
) -> None:
    changed = VARIANTS[name](scan, base)
    masks = draw(changed.scan, model)
    found = {oar: dice(masks.mask(BY_NAME[oar]), changed.reference(BY_NAME[oar])) for oar in PLAIN}
    assert {oar: value for oar, value in found.items() if value is None or value < BY_A_BOX.get((name, oar), least)} == {}


@pytest.mark.long("shipped")
def test_streaks_of_fillings_spoil_the_jaw_alone(scan: Scan, model: Model, base: OARMasks) -> None:
    changed = VARIANTS["streaks"](scan, base)
    masks = draw(changed.scan, model)
    for name in ("Brain", "Lung_L", "Lung_R", "SpinalCord"):
        assert (dice(masks.mask(BY_NAME[name]), changed.reference(BY_NAME[name])) or 0.0) >= 0.9, name


@pytest.mark.long("shipped")
@pytest.mark.parametrize(
    ("name", "absent"),
    [("head alone", ("Lung_L", "Lung_R")), ("shoulders alone", ("Brain", "Eye_L", "Eye_R", "Lens_L", "Lens_R"))],
)
def test_an_organ_outside_the_scan_is_empty(name: str, absent: tuple[str, ...], scan: Scan, model: Model, base: OARMasks) -> None:
    changed = VARIANTS[name](scan, base)
    masks = draw(changed.scan, model)
    drawn = {oar: int(masks.mask(BY_NAME[oar]).sum()) for oar in absent if masks.mask(BY_NAME[oar]).any()}
    assert not drawn, drawn


def test_in_the_lowest_10_cm_the_lungs_are_on_their_sides_and_nothing_of_the_head_is_invented(scan: Scan, model: Model) -> None:
    lowest = slice(0, round(100 / scan.grid.spacing_mm[0]))
    masks = draw(Scan(scan.hu[lowest], replace(scan.grid, origins_mm=scan.grid.origins_mm[lowest])), model)
    assert [oar.name for oar in masks.oars if oar.name in OF_THE_HEAD and masks.mask(oar).any()] == []
    left, right = (
        scan.grid.to_points(np.argwhere(masks.mask(BY_NAME[lung])).astype(float))[:, 0].mean() for lung in ("Lung_L", "Lung_R")
    )
    assert left > right + 100  # x grows towards the patient's left; the lungs' centres lie 15 to 20 cm apart
