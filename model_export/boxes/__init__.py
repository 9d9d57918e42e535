"""Box networks: small networks that draw a few organs at 1 mm in a box around what a coarse model has found.

`config` reads a run, `data` makes its file, `sampling` draws what a step sees (with `things` on the skin), `network` is the
network, `train` trains it, `judge` measures it, `export` writes the ONNX file and its part of a manifest.
"""
