"""The DICOM face: takes series in by DIMSE and from folders, and sends results home; knows the service by its API alone."""
