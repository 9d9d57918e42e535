"""Scores into pandas: mean, spread and the worst tenth of each organ, for one origin.

python scores.py [supplied|approved]
"""

import os
import sys

import pandas as pd

server = os.environ["OARLOCK_URL"]
headers = {"Authorization": f"Bearer {os.environ.get('OARLOCK_KEY', '')}"}
origin = sys.argv[1] if len(sys.argv) > 1 else "approved"

scores = pd.read_csv(f"{server}/v1/qa/scores?format=csv&limit=5000&origin={origin}", storage_options=headers)
by_organ = scores.dropna(subset=["surface_dsc"]).groupby("oar")["surface_dsc"]
print(by_organ.agg(["count", "mean", "std", lambda found: found.quantile(0.1)]).round(3).to_string())
