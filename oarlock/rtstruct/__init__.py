"""RTSTRUCT files: writing, reading, placing on a grid, validating, site profiles. No scores, and no job."""
