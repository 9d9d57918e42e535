"""The report of a contour set for people: one HTML source, as a page, a PDF and an Encapsulated PDF."""
