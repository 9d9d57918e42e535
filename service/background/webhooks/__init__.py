"""Callbacks: telling other servers that a job has ended, and only those that are meant."""
