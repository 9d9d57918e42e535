"""Studies: what is found out about the model, the checks and the queue. Speed and memory are benchmarks."""
