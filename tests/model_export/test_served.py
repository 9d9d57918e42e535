"""Serving: a patient and their mirror image are shown alike, air is not computed, the half-size twin says nearly the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model_export.network import Window
from model_export.sampling import MIRRORED, more_at_high_x
from model_export.served import Served, body_window, read_of_air
from oarlock.segmentation.manifest import check_hash, read_manifest
from tests.model_export.test_network import trained_looking

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.config import Config


def test_a_mirrored_scan_gets_the_mirrored_answer(tiny: Config) -> None:
    served = Served(trained_looking(tiny)).eval()
    ct_hu = torch.from_numpy(np.random.default_rng(0).normal(0, 300, (1, 1, 23, 32, 32)).astype(np.float32))
    with torch.no_grad():
        straight, turned = served(ct_hu), served(ct_hu.flip(-1))
    np.testing.assert_allclose(turned.flip(-1)[:, list(MIRRORED)], straight, atol=1e-6)
    served.same_way_round = False
    with torch.no_grad():
        one_sided = served(ct_hu)
    assert not np.allclose(served(ct_hu.flip(-1)).detach().flip(-1)[:, list(MIRRORED)], one_sided, atol=1e-3)


def test_it_is_shown_what_has_more_on_the_left_of_the_picture(tiny: Config) -> None:
    network = trained_looking(tiny)
    ct_hu = torch.from_numpy(np.random.default_rng(1).normal(0, 300, (2, 1, 22, 32, 32)).astype(np.float32))
    ct_hu[0, ..., :16] += 100
    ct_hu[1, ..., 16:] += 100
    with torch.no_grad():
        found = Served(network).eval()(ct_hu)
        np.testing.assert_allclose(found[0], torch.sigmoid(network(ct_hu[:1]))[0], atol=1e-6)
        turned = torch.sigmoid(network(ct_hu[1:].flip(-1)))[0].flip(-1)[list(MIRRORED)]
    np.testing.assert_allclose(found[1], turned, atol=1e-6)


def test_what_lies_beside_the_window_of_the_body_counts_in_which_way_round_a_slab_is_shown(tiny: Config) -> None:
    """As in training, where the slab is not cut to the window before."""
    network = trained_looking(wide(tiny))
    served = Served(network).eval()
    ct_hu = body_in_air()
    shell = ct_hu.clone()
    shell[..., 32:62, :2] = 1000.0  # heavy, far to low x, and too thin to be body
    with torch.no_grad():
        for shown in (ct_hu, shell):
            turned = more_at_high_x(shown)
            window = body_window(shown, served.air)
            assert torch.equal(served(shown), window.in_field(served.answer(window.of(shown, 16), window, turned), 32))
        assert more_at_high_x(ct_hu)[0] != more_at_high_x(shell)[0]


def test_some_organs_have_the_answers_that_they_have_among_all(tiny: Config) -> None:
    network = trained_looking(tiny)
    ct_hu = torch.from_numpy(np.random.default_rng(2).normal(0, 300, (1, 1, 22, 32, 32)).astype(np.float32))
    some = [9, 3, 4]
    with torch.no_grad():
        for shown in (ct_hu, ct_hu.flip(-1)):
            found, whole = Served(network, some).eval()(shown), Served(network).eval()(shown)
            np.testing.assert_allclose(found, whole[:, some], atol=1e-7)


def body_in_air() -> torch.Tensor:
    """22 slices of air, 64 voxels wide, with noisy tissue in rows 17 to 30 and columns 34 to 44, and a table's thin shell."""
    hu = np.full((1, 1, 22, 64, 64), -1000.0, np.float32)
    hu[..., 17:31, 34:45] = np.random.default_rng(5).normal(40, 60, (1, 1, 22, 14, 11))
    hu[..., 50:52, :] = 200.0
    return torch.from_numpy(hu)


def wide(tiny: Config) -> Config:
    """A field of four by four cells."""
    return replace(tiny, network=replace(tiny.network, size=64))


@pytest.mark.parametrize(("moved", "expected"), [(0, (1, 1, 1, 2)), (-1, (0, 2, 1, 2)), (1, (1, 2, 1, 2)), (14, (1, 2, 1, 2))])
def test_the_window_is_the_cells_that_hold_the_body_and_a_voxel_around_it(
    moved: int, expected: tuple[int, int, int, int]
) -> None:
    """Cells are 16 voxels. Rows 16 to 31 are the second; columns 33 to 45 lie in the third, whose mirror image is the second."""
    ct_hu = body_in_air()
    ct_hu[..., :48, :] = ct_hu[..., :48, :].roll(moved, dims=-2)
    window = body_window(ct_hu, torch.zeros(1, 8, 4, 4))
    assert (int(window.top), int(window.height), int(window.left), int(window.width)) == expected


def test_a_scan_of_air_is_computed_whole() -> None:
    window = body_window(torch.full((1, 1, 22, 64, 64), -1000.0), torch.zeros(1, 8, 4, 4))
    assert [int(n) for n in (window.top, window.height, window.left, window.width)] == [0, 4, 0, 4]


def test_the_fully_connected_block_reads_air_around_the_window(tiny: Config) -> None:
    air = read_of_air(trained_looking(wide(tiny)))
    window = Window(1, 1, 1, 2, 4, air)
    read = window.in_air(torch.full((1, air.shape[1], 1, 2), 7.0))
    np.testing.assert_allclose(read[:, :, 1, 1:3], 7.0, atol=1e-6)
    around = np.ones((4, 4), np.bool_)
    around[1, 1:3] = False
    np.testing.assert_allclose(read[:, :, around], air[:, :, around], atol=1e-6)
    assert float(air.std()) > 0.01  # air is not nothing


def test_beside_the_body_is_no_organ_and_a_mirrored_body_gets_the_mirrored_answer(tiny: Config) -> None:
    served = Served(trained_looking(wide(tiny))).eval()
    ct_hu = body_in_air()
    with torch.no_grad():
        straight, turned = served(ct_hu), served(ct_hu.flip(-1))
    np.testing.assert_allclose(turned.flip(-1)[:, list(MIRRORED)], straight, atol=1e-6)
    shown = np.zeros((128, 128), np.bool_)
    shown[32:64, 32:96] = True  # the second row of cells, the two in its middle
    np.testing.assert_array_equal(straight[0, 0, 0].numpy() > 0, shown)


@pytest.mark.long("training")
def test_the_half_size_twin_is_a_model_of_its_own(tiny: Config, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="model_export needs onnx: install the extra model-export")
    from model_export.export import export_model
    from model_export.halve import halve

    source, twin = tmp_path / "made-hn", tmp_path / "made-hn-half"
    wider = replace(tiny, network=replace(tiny.network, bottom_width=256))
    export_model(trained_looking(wider), wider, source, version="1.2.3", facts={}, results={})
    agreement = halve(source, twin)
    manifest = read_manifest(twin)
    check_hash(manifest)
    assert (manifest.name, manifest.version) == ("made-hn-half", "1.2.3")
    assert 0 < agreement.probability < 0.02
    assert (twin / "model.onnx").stat().st_size < 0.75 * (source / "model.onnx").stat().st_size
