"""Grids, masks and contours in patient space. Arrays in, values out; knows no DICOM."""
