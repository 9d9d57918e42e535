"""Two commissionings of the same past patients, by two models."""

from pathlib import Path

import numpy as np

from tests.fixtures.past_patients import PastPatients
from tests.service.running import Running, write_model

LABEL = "commissioning 2026"
MEANS = {"Brainstem": 0.93, "Parotid_L": 0.88, "SpinalCord": 0.95}
"""Surface DSC of each organ by the first model, on the average."""

BETTER = 0.04
"""How much the second model is better at one of them."""


def commission(running: Running, folder: Path, patients: int = 8) -> None:
    """Post and finish the same patients for both models; one of the second's still waits."""
    folder.mkdir()
    write_model(running.settings.models, "second", "5e" * 32)
    rng, past = np.random.default_rng(7), PastPatients(running, folder)
    for number in range(patients):
        scores = {oar: float(np.clip(mean + rng.normal(0, 0.02), 0, 1)) for oar, mean in MEANS.items()}
        past.finish(number, scores, label=LABEL, model="oarlock-hn")
        past.finish(number, scores | {"Parotid_L": min(1.0, scores["Parotid_L"] + BETTER)}, label=LABEL, model="second")
    past.post(patients, label=LABEL, model="second")
