"""DICOM Segmentation files, made of what a job keeps: its RTSTRUCT, its masks and the geometry of its series."""
