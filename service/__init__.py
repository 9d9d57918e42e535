"""The HTTP face: takes a CT series in, says how its job stands, hands the results out. Knows nothing of ONNX or of the worker."""
