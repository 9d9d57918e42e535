"""The walk of one series, from its files to its results."""
