"""The HTTP face: takes series in, reports on jobs, hands results out; nothing of ONNX or of the worker."""
