"""ONNX models in ONNX Runtime sessions. The only package that imports ONNX Runtime; service must not import it."""

import os

# ONNX Runtime's wheels report to their maker over the network from the moment of their import. Oarlock does not.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
