"""The network: its shapes, its context, and that a slab knows nothing of itself."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch

from model_export.network import Network, Norm, NormReLUConv
from tests.model_export.conftest import CONFIGS

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from model_export.config import Config


def trained_looking(config: Config) -> Network:
    """A network whose norms hold statistics other than 0 and 1, in evaluation."""
    torch.manual_seed(3)
    network = Network(config.network)
    for module in network.modules():
        if isinstance(module, Norm):
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.normal_(module.bias, 0.0, 0.2)
    return network.eval()


def test_a_slab_of_20_more_slices_gives_every_oar_at_twice_the_resolution(tiny: Config) -> None:
    network = trained_looking(tiny)
    for slices in (21, 24):
        logits = network(torch.zeros(2, 1, slices, 32, 32))
        assert logits.shape == (2, 21, slices - 20, 64, 64)


def test_overlapping_slabs_join_without_a_seam(tiny: Config) -> None:
    network = trained_looking(tiny)
    ct_hu = torch.randn(1, 1, 30, 32, 32) * 300
    with torch.no_grad():
        whole = network(ct_hu)  # 10 slices
        joined = torch.cat([network(ct_hu[:, :, :23]), network(ct_hu[:, :, 3:])], dim=2)  # 3 and 7
    torch.testing.assert_close(joined, whole, rtol=1e-5, atol=1e-5)


def test_a_convolution_with_context_is_a_3x3x3_one_valid_along_z_for_each_slab() -> None:
    torch.manual_seed(4)
    block = NormReLUConv(2, 5, context=True, momentum=0.1).eval()
    slabs = torch.randn(3, 2, 6, 7, 8)  # (N, C, Z, Y, X)
    weight = block.conv.weight.unflatten(1, (3, 2)).transpose(1, 2)  # (outputs, inputs, 3, 3, 3)
    relu = torch.relu(slabs / (1.0 + block.norm.eps) ** 0.5)  # a fresh norm
    expected = torch.nn.functional.conv3d(relu, weight, padding=(0, 1, 1))
    found = block(slabs.permute(2, 0, 1, 3, 4).flatten(0, 1), 3).unflatten(0, (4, 3)).permute(1, 2, 0, 3, 4)
    torch.testing.assert_close(found, expected)


def test_slabs_in_one_batch_do_not_see_each_other(tiny: Config) -> None:
    network = trained_looking(tiny)
    slabs = torch.randn(2, 1, 23, 32, 32) * 300
    with torch.no_grad():
        torch.testing.assert_close(network(slabs), torch.cat([network(slabs[:1]), network(slabs[1:])]), rtol=1e-5, atol=1e-5)


def test_a_predicted_slice_sees_exactly_21_slices(tiny: Config) -> None:
    network = trained_looking(tiny)
    ct_hu = (torch.randn(1, 1, 25, 32, 32) * 100).requires_grad_()
    network(ct_hu)[:, :, 2].sum().backward()  # of five predicted slices the middle one
    assert ct_hu.grad is not None
    reached = ct_hu.grad.abs().amax(dim=(0, 1, 3, 4)) > 0
    assert reached.tolist() == [2 <= z <= 22 for z in range(25)]


def test_the_bottom_sees_the_whole_slice(tiny: Config) -> None:
    network = trained_looking(tiny)
    ct_hu = (torch.randn(1, 1, 21, 32, 32) * 100).requires_grad_()
    network(ct_hu)[0, :, 0, 0, 0].sum().backward()  # the first corner
    assert ct_hu.grad is not None
    assert ct_hu.grad[0, 0, :, -4:, -4:].abs().sum() > 0  # reaches the opposite one


def test_the_logits_before_the_shuffle_are_those_after_it(tiny: Config) -> None:
    from model_export.sampling import to_subpixels

    network = trained_looking(tiny)
    features = torch.randn(2, 4, 6, 8)
    shuffled = network.head(features)[:, [7, 2]].transpose(0, 1)
    torch.testing.assert_close(network.head.subpixels(features, (7, 2)), to_subpixels(shuffled, 2))


def test_the_pixel_shuffle_puts_rows_and_columns_in_order(tiny: Config) -> None:
    head = Network(tiny.network).head.eval()
    with torch.no_grad():
        head.conv.weight.zero_()
        head.conv.bias.copy_(torch.arange(21 * 4))
    logits = head(torch.zeros(1, 4, 3, 3))
    assert logits[0, 0, :2, :2].tolist() == [[0, 1], [2, 3]]
    assert logits[0, 5, 2:4, 4:6].tolist() == [[20, 21], [22, 23]]


def test_renormalised_training_output_approaches_the_running_statistics() -> None:
    norm = Norm(3, momentum=0.0)  # running statistics stay 0 and 1
    torch.manual_seed(6)
    features = torch.randn(12, 3, 48, 50) * 1.5 + 0.7
    norm.train()
    plain = norm(features)
    assert plain.mean().abs() < 1e-4
    norm.limit = 3.0  # the true factor, 1.5, and shift, 0.7, lie within the limits
    renormalised = norm(features)
    exact = norm.eval()(features)
    assert (renormalised - exact).abs().mean() < 0.1  # the batch's statistics are estimated from a sample
    assert (plain - exact).abs().mean() > 0.5


def test_the_papers_config_has_the_papers_shape() -> None:
    from model_export.config import read_config

    network = read_config(CONFIGS / "paper.toml").network
    assert network.context_slices == 21
    assert len(network.channels) == 7
    assert network.size == 512
    assert network.upscale == 1
    assert network.outputs == 21


@pytest.mark.parametrize("wrong", [{"size": 100}, {"convs": (2, 2)}, {"pool_after": (1, 9)}])
def test_a_shape_that_cannot_be_built_is_refused(tiny: Config, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"poolings|convs|pool_after"):
        dataclasses.replace(tiny.network, **wrong)
