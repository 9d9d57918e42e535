"""A made-up head and neck with known contours."""
