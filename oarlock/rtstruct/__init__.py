"""RTSTRUCT files: writing, reading, validating, site profiles."""
