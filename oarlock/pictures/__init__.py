"""Pictures of a series with its contours."""
