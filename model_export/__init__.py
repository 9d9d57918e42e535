"""The model's birth: network, loss, data, training, evaluation and export. torch lives here and nowhere else."""
