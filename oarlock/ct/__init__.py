"""CT series: sorting, stacking, pixel values, de-identification. A series is exact or refused."""
