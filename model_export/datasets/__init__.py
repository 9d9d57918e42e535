"""The public data that the shipped model is trained on, read in the layouts in which their owners publish them."""
