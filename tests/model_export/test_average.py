"""The mean of several runs from one model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch

from model_export.average import NotOneStart, mean_of_runs
from model_export.cli import main
from model_export.train import CHECKPOINT, resume_run, start_run, train, write_checkpoint
from tests.model_export.conftest import made_case

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.config import Config
    from model_export.train import Run


def trained(config: Config, folder: Path, seed: int, start: str = "a model 1.0.0") -> Run:
    run = start_run(dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed)))
    run.origin = {"start": start, "steps_before": 40}
    train(run, [made_case()], folder, steps=2)
    return run


@pytest.mark.long("training")
def test_the_mean_lies_between_and_counts_all_steps(tiny: Config, tmp_path: Path) -> None:
    runs = [trained(tiny, tmp_path / str(seed), seed) for seed in (1, 2)]
    mean = mean_of_runs(runs, tiny)
    first, second = (run.average.state_dict() for run in runs)
    for name, value in mean.average.state_dict().items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)
    assert any(not torch.equal(value, second[name]) for name, value in first.items())
    assert mean.step == 4
    assert mean.elapsed_s == pytest.approx(sum(run.elapsed_s for run in runs))
    assert mean.origin == runs[0].origin | {"runs": 2}


@pytest.mark.long("training")
def test_runs_from_different_starts_have_no_mean(tiny: Config, tmp_path: Path) -> None:
    fresh = start_run(tiny)
    with pytest.raises(NotOneStart):
        mean_of_runs([fresh, fresh], tiny)
    with pytest.raises(NotOneStart):
        mean_of_runs([trained(tiny, tmp_path / "a", 1), trained(tiny, tmp_path / "b", 2, start="another")], tiny)
    with pytest.raises(NotOneStart):
        mean_of_runs([], tiny)


@pytest.mark.long("training")
def test_the_command_writes_a_checkpoint_that_can_be_judged_and_exported(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_export.config.read_config", lambda _path: tiny)
    runs = [trained(tiny, tmp_path / str(seed), seed) for seed in (1, 2)]
    for seed, run in zip((1, 2), runs, strict=True):
        write_checkpoint(run, tmp_path / str(seed) / CHECKPOINT)
    main(["average", "--runs", str(tmp_path / "1"), str(tmp_path / "2"), "--folder", str(tmp_path / "mean")])
    mean = resume_run(tiny, tmp_path / "mean" / CHECKPOINT)
    assert mean.step == 4
    assert torch.equal(mean.network.head.conv.weight, mean.average.head.conv.weight)
