"""The checks that need no reference, a family a file: an Anatomy in, Findings out. Nothing here reads a file or knows DICOM."""
