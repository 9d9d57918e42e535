"""The curves of a run as a picture.

Loss and learning rate, and what the evaluations of its checkpoints found.
"""

import json
from pathlib import Path
from typing import Any

from model_export.train import CURVE

EVALUATIONS = "evaluation-*.json"


def draw_curves(folder: Path, path: Path) -> None:
    """Write a PNG from what `train` and `evaluate` left in a folder."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    points = [json.loads(line) for line in (folder / CURVE).read_text().splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5))
    steps = [point["step"] for point in points]
    left.plot(steps, [point["loss"] for point in points])
    left.set(xlabel="step", ylabel="loss (mean of 50 steps)")
    rate = left.twinx()
    rate.plot(steps, [point["rate"] for point in points], color="0.7")
    rate.set(ylabel="learning rate")
    for name, series in sorted(_evaluations(folder).items()):
        style = "-" if name.startswith("openkbp") else "--"
        right.plot(*zip(*series, strict=True), style, marker=".", label=name)
    right.set(xlabel="step", ylabel="mean volumetric DSC, tuning split", ylim=(0, 1))
    if right.lines:
        right.legend(fontsize=5, ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _evaluations(folder: Path) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    documents: list[dict[str, Any]] = [json.loads(path.read_text()) for path in folder.glob(EVALUATIONS)]
    for document in sorted(documents, key=lambda d: int(d["facts"]["step"])):
        for line in document["summary"]:
            series.setdefault(f"{line['source']} {line['oar']}", []).append((int(document["facts"]["step"]), line["mean"]))
    return series
