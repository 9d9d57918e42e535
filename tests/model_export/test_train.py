"""Training: it learns, it goes on bit for bit, and the paper's own config does both."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from model_export.augment import AugmentConfig
from model_export.config import read_config
from model_export.datasets.training_file import CHANNEL
from model_export.loss import fast_loss_of_sample
from model_export.sampling import draw_case, to_subpixels
from model_export.served import Served, body_window, read_of_air
from model_export.train import CHECKPOINT, CURVE, loss_of_step, norm_limit, resume_run, slabs_of_step, start_run, train
from tests.model_export.conftest import CONFIGS, made_case
from tests.model_export.test_network import trained_looking

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.config import Config

PAPER_TINY: dict[str, dict[str, Any]] = {
    "grid": {"size": 64, "spacing_mm": [2.5, 5.0, 5.0]},
    "network": {"channels": [4, 4, 5, 5, 6, 6, 7], "bottom_width": 8},
    "training": {"slabs_per_step": 2, "steps": 40, "learning_rate": 3e-3},
}


def losses_of(config: Config, folder: Path, steps: int) -> list[float]:
    run = start_run(config)
    train(run, [made_case(drawn=(0, 31))], folder, steps=steps)
    return run.losses


@pytest.mark.parametrize(
    "name", [pytest.param("shipped", marks=pytest.mark.slow), pytest.param("paper", marks=pytest.mark.long("training"))]
)
def test_training_lowers_the_loss(name: str, tiny: Config, tmp_path: Path) -> None:
    config = tiny if name == "shipped" else read_config(CONFIGS / "paper.toml", PAPER_TINY)
    training = dataclasses.replace(config.training, steps=40, warm_up=0.0, learning_rate=1e-2, norm_limit=1.0)
    config = dataclasses.replace(config, training=training, augment=AugmentConfig())
    losses = losses_of(config, tmp_path, 40)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])


def test_a_resumed_run_is_the_same_to_the_last_bit(tiny: Config, tmp_path: Path) -> None:
    cases = [made_case()]
    whole = start_run(tiny)
    train(whole, cases, tmp_path / "whole", steps=6)

    train(start_run(tiny), cases, tmp_path / "parts", steps=3)
    resumed = resume_run(tiny, tmp_path / "parts" / CHECKPOINT)
    assert resumed.step == 3
    train(resumed, cases, tmp_path / "parts", steps=6)

    assert resumed.losses == whole.losses
    for theirs, ours in ((whole.network, resumed.network), (whole.average, resumed.average)):
        for name, value in theirs.state_dict().items():
            assert torch.equal(value, ours.state_dict()[name]), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_draws_the_slabs_that_the_cpu_draws(tiny: Config) -> None:
    plain = dataclasses.replace(tiny, augment=dataclasses.replace(tiny.augment, noise_sd_hu=0.0))
    for step in range(4):
        here, there = (slabs_of_step(step, [made_case()], plain, torch.device(name)) for name in ("cpu", "cuda"))
        for ours, theirs in zip(here, there, strict=True):
            assert theirs.ct_hu.device.type == theirs.target.device.type == theirs.counts.device.type == "cuda"
            assert ours.window == theirs.window
            torch.testing.assert_close(theirs.ct_hu.cpu(), ours.ct_hu, atol=0.5, rtol=0.0)
            torch.testing.assert_close(theirs.target.cpu(), ours.target, atol=0.01, rtol=0.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_run_moves_between_devices(tiny: Config, tmp_path: Path) -> None:
    train(start_run(tiny, device="cuda"), [made_case()], tmp_path, steps=3)
    resumed = resume_run(tiny, tmp_path / CHECKPOINT, device="cpu")
    train(resumed, [made_case()], tmp_path, steps=5)
    assert np.isfinite(resumed.losses).all()


def test_a_schedule_in_hours_ends_with_them(tiny: Config, tmp_path: Path) -> None:
    run = start_run(tiny)
    train(run, [made_case()], tmp_path, hours=0.5 / 3600)
    assert 0.5 <= run.elapsed_s < 5
    assert (tmp_path / CHECKPOINT).is_file()


def test_a_run_of_no_hours_is_what_it_starts_from(tiny: Config, tmp_path: Path) -> None:
    run = start_run(tiny)
    train(run, [made_case()], tmp_path, hours=0.0)
    kept = resume_run(tiny, tmp_path / CHECKPOINT)
    assert kept.step == 0
    for one, other in zip(run.average.state_dict().values(), kept.average.state_dict().values(), strict=True):
        assert one.equal(other)


def test_a_stopped_run_keeps_what_it_has(tiny: Config, tmp_path: Path) -> None:
    run = start_run(tiny)
    train(run, [made_case()], tmp_path, stop=lambda: run.step == 2)
    assert resume_run(tiny, tmp_path / CHECKPOINT).step == 2


@pytest.mark.long("training")
def test_the_curve_has_a_point_every_50_steps_and_can_be_drawn(tiny: Config, tmp_path: Path) -> None:
    from model_export.curves import draw_curves

    train(start_run(dataclasses.replace(tiny, training=dataclasses.replace(tiny.training, steps=50))), [made_case()], tmp_path)
    assert len((tmp_path / CURVE).read_text().splitlines()) == 1
    draw_curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_papers_rate_falls_at_its_steps() -> None:
    training = read_config(CONFIGS / "paper.toml").training
    rates = [training.rate(step, 0.0) for step in (0, 23_999, 24_000, 60_000, 108_000, 114_000)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4 / 2, 1e-4 / 8, 1e-4 / 64, 1e-4 / 256])


def test_the_shipped_rate_warms_up_and_ends_at_zero(tiny: Config) -> None:
    training = tiny.training
    peak = training.learning_rate
    assert training.rate(0, 0.0) == 0
    assert training.rate(0, training.warm_up) == pytest.approx(peak, rel=0.01)
    assert training.rate(0, 1.0) == pytest.approx(0.0, abs=1e-9)


def test_the_norm_correction_opens_slowly(tiny: Config) -> None:
    limits = [norm_limit(tiny.training, progress) for progress in (0.0, 0.05, 0.125, 0.2, 1.0)]
    assert limits == pytest.approx([1.0, 1.0, 2.0, 3.0, 3.0])


def test_with_fixed_norms_a_step_learns_all_but_their_statistics(tiny: Config, tmp_path: Path) -> None:
    run = start_run(dataclasses.replace(tiny, training=dataclasses.replace(tiny.training, fixed_norms=True, warm_up=0.0)))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    train(run, [made_case()], tmp_path, steps=2)
    changed = {name for name, value in run.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in run.network.named_parameters()}


def in_the_body(config: Config) -> Config:
    """A run whose steps compute the window of the body alone, in a field of four cells."""
    network = dataclasses.replace(config.network, size=64, body_only=True)
    training = dataclasses.replace(config.training, fixed_norms=True)
    return dataclasses.replace(config, grid=dataclasses.replace(config.grid, size=64), network=network, training=training)


def test_a_step_in_the_window_of_the_body_has_the_loss_of_what_is_served(tiny: Config) -> None:
    config = in_the_body(tiny)
    network = trained_looking(config).eval()
    (slab,) = slabs_of_step(0, [made_case()], config)
    air = read_of_air(network)
    window = body_window(slab.ct_hu[None, None], air).in_numbers()
    assert window.height < window.size  # or nothing is left out
    seen = slab.within(window.rows(16), window.columns(16))
    with torch.no_grad():
        found = loss_of_step(network, [slab], config, air=air)
        served = Served(network).eval()(slab.ct_hu[None, None])[0].clamp(1e-12, 1 - 1e-7)
        upscale = config.grid.upscale
        rows, columns = (slice(span.start * upscale, span.stop * upscale) for span in seen.window)
        logits = to_subpixels(torch.logit(served[list(seen.channels)][..., rows, columns]), upscale)
        target = to_subpixels(seen.target, upscale)
        expected = fast_loss_of_sample(logits, target, seen.counts[:, None, None], config.loss)
    assert float(found) == pytest.approx(float(expected), rel=1e-3)


def test_a_slab_whose_loss_looks_at_nothing_near_the_body_teaches_nothing(tiny: Config) -> None:
    config = in_the_body(tiny)
    network = trained_looking(config).eval()
    (slab,) = slabs_of_step(0, [made_case()], config)
    high = torch.cat([slab.ct_hu[:, 24:], torch.full_like(slab.ct_hu[:, :24], -1000.0)], dim=1)  # the last cells show air
    rows, columns = slice(62, 64), slab.window[1]
    counts, target = slab.counts[..., :2, :], slab.target[..., :4, :]
    slab = dataclasses.replace(slab, ct_hu=high, window=(rows, columns), counts=counts, target=target)
    loss = loss_of_step(network, [slab], config, air=read_of_air(network))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0


def test_air_is_not_read_any_more_where_norms_learn_again(tiny: Config, tmp_path: Path) -> None:
    config = in_the_body(tiny)
    train(start_run(config), [made_case()], tmp_path, steps=1)
    free = dataclasses.replace(config, training=dataclasses.replace(config.training, fixed_norms=False))
    run = resume_run(free, tmp_path / CHECKPOINT)
    train(run, [made_case()], tmp_path, steps=2)
    assert run.air is None


def test_a_resumed_run_reads_the_air_that_it_read_before(tiny: Config, tmp_path: Path) -> None:
    config = in_the_body(tiny)
    straight = start_run(config)
    train(straight, [made_case()], tmp_path / "straight", steps=4)
    broken = start_run(config)
    train(broken, [made_case()], tmp_path / "broken", steps=2)
    again = resume_run(config, tmp_path / "broken" / CHECKPOINT)
    train(again, [made_case()], tmp_path / "broken", steps=4)
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_without_an_oar_first_each_scan_is_drawn_alike() -> None:
    cases = [made_case(name=str(n)) for n in range(3)]
    rng = np.random.default_rng(1)
    drawn = [draw_case(cases, 0.0, rng) for _ in range(900)]
    assert all(oar is None for _, oar in drawn)
    for scan in cases:
        assert sum(case is scan for case, _ in drawn) == pytest.approx(300, abs=75)


def test_an_oar_is_looked_for_in_all_scans_that_show_it() -> None:
    """Lungs that a rule labelled in OpenKBP's scans are whole; those under the released contours are cut."""
    lung, cord = CHANNEL["Lung_L"], CHANNEL["SpinalCord"]
    cases = [made_case(name=str(n), channels=(lung, cord)) for n in range(3)]
    cases.append(made_case(name="m", source="matched", channels=(lung, cord)))
    rng = np.random.default_rng(1)
    drawn = [
        (case.name, case.channels[oar]) for case, oar in (draw_case(cases, 1.0, rng) for _ in range(4000)) if oar is not None
    ]
    by_name = [name for name, channel in drawn if channel == lung]
    assert len(by_name) > 100
    assert by_name.count("m") * 4 == pytest.approx(len(by_name), rel=0.35)


def test_a_rare_oar_is_drawn_as_often_as_a_common_one() -> None:
    lens, cord = CHANNEL["Lens_L"], CHANNEL["SpinalCord"]
    cases = [made_case(name=str(n), source="matched", channels=(cord,)) for n in range(7)]
    cases.append(made_case(name="orbit", source="matched", channels=(lens, cord)))
    rng = np.random.default_rng(1)
    drawn = [draw_case(cases, 1.0, rng) for _ in range(3000)]
    wanted = [case.channels[oar] for case, oar in drawn if oar is not None]
    assert wanted.count(lens) * 2 == pytest.approx(wanted.count(cord), rel=0.3)  # of a pair, half of the draws are the left
