"""The mean of several runs from one start.

Its weights are the mean of theirs; it errs less than each of them.

Runs that begin at the same trained network and see different slabs stay close enough together for the mean of their weights
to be a network like them (Wortsman et al. 2022). So two cores train two runs, each at full speed.
"""

from collections.abc import Sequence

import torch

from model_export.config import Config
from model_export.train import Run, start_run


class NotOneStart(ValueError):
    """The runs do not start from one trained network."""


def mean_of_runs(runs: Sequence[Run], config: Config) -> Run:
    """A run whose averaged weights are the mean of the runs'.

    With the steps and the hours of them all.

    :raises NotOneStart: if there are none, or they did not all start from the same model: such weights have no mean.
    """
    if not runs or not runs[0].origin or any(run.origin != runs[0].origin for run in runs):
        raise NotOneStart("only runs that started from the same model (train --start) have a mean")
    mean = start_run(config)
    states = [run.average.state_dict() for run in runs]
    mean.average.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    mean.network.load_state_dict(mean.average.state_dict())
    mean.step, mean.elapsed_s = sum(run.step for run in runs), sum(run.elapsed_s for run in runs)
    mean.origin = runs[0].origin | {"runs": len(runs)}
    return mean
