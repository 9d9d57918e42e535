"""The model's birth: network, loss, data, training, evaluation and export. torch lives here and nowhere else."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # see worker/__init__.py
