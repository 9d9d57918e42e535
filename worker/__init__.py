"""The queue face: takes a job's id from the queue and walks its series through. Knows nothing of HTTP."""

import os

# ONNX Runtime's wheels report to their maker over the network from the moment of their import. A hospital's worker does not.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
