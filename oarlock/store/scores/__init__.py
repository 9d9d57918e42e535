"""Scores of finished jobs, for dashboards: rows without patient data. Nothing here reads an image or a mask."""
