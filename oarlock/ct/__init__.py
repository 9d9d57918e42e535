"""CT series: what is taken in, geometry, Hounsfield units, de-identification. May not hold contours or organs."""
