"""Grids, masks, polygons and contours in patient space: arrays in, values out. No DICOM, no files."""
