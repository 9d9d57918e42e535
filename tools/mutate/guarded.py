"""Modules in which a wrong sign hurts a patient, and their tests.

The tests are few and quick, as every mutant runs them.
"""

from typing import Final

_SERIES: Final = ("ct/test_slice_spacing.py", "ct/test_limits.py", "ct/test_series.py")
_CHECKS: Final = ("qa/test_findings.py", "qa/test_checks.py", "qa/test_plausibility.py", "qa/test_plausibility_sentences.py")
_MEASURES: Final = ("qa/test_measures.py", "qa/test_surface_dsc.py")

HELD_BY: Final = {
    "oarlock/ct/slice_spacing.py": ("ct/test_slice_spacing.py",),
    "oarlock/ct/sorting.py": ("ct/test_sorting.py", *_SERIES, "ct/test_multiframe.py"),
    "oarlock/ct/completeness.py": ("ct/test_completeness.py",),
    "oarlock/ct/hounsfield.py": ("ct/test_hounsfield.py",),
    "oarlock/ct/turned_over.py": ("ct/test_turned_over.py",),
    "oarlock/ct/pixel_header.py": (
        "ct/test_pixel_header.py",
        "ct/test_limits.py",
        "ct/test_pixels.py",
        "ct/test_what_the_standard_allows.py",
    ),
    "oarlock/ct/pixel_reader.py": ("ct/test_pixel_reader.py", "ct/test_pixels.py", "ct/test_series.py"),
    "oarlock/geometry/grid.py": ("geometry/test_grid.py", "geometry/test_contours.py"),
    "oarlock/geometry/contours.py": ("geometry/test_contours.py",),
    "oarlock/geometry/morphology.py": ("geometry/test_morphology.py",),
    "oarlock/geometry/polygons.py": ("geometry/test_polygons.py", "geometry/test_contours.py"),
    "oarlock/geometry/interpolation.py": ("geometry/test_interpolation.py", "rtstruct/test_placing.py"),
    "oarlock/geometry/overlaps.py": ("geometry/test_overlaps.py", "rtstruct/test_placing.py"),
    "oarlock/rtstruct/writer.py": ("rtstruct/test_writer.py", "rtstruct/test_profiles.py"),
    "oarlock/rtstruct/reader.py": ("rtstruct/test_reader.py", "rtstruct/test_reader_doc.py"),
    "oarlock/rtstruct/planes.py": ("rtstruct/test_planes.py",),
    "oarlock/rtstruct/placing.py": ("rtstruct/test_placing_limits.py", "rtstruct/test_placing.py", "rtstruct/test_reader_doc.py"),
    "oarlock/rtstruct/validator.py": ("rtstruct/test_validator.py",),
    "oarlock/qa/measures.py": (*_MEASURES, "qa/test_qa_doc.py"),
    "oarlock/qa/lattice.py": ("qa/test_lattice.py", *_MEASURES),
    "oarlock/qa/surface_dsc.py": _MEASURES,
    "oarlock/qa/volumes.py": _MEASURES,
    "oarlock/qa/plausibility.py": _CHECKS,
    "oarlock/qa/checks/anatomy.py": _CHECKS,
    "oarlock/qa/checks/certainty.py": _CHECKS,
    "oarlock/qa/checks/density.py": _CHECKS,
    "oarlock/qa/checks/finding.py": _CHECKS,
    "oarlock/qa/checks/neighbours.py": _CHECKS,
    "oarlock/qa/checks/place.py": _CHECKS,
    "oarlock/qa/checks/presence.py": _CHECKS,
    "oarlock/qa/checks/skin.py": _CHECKS,
    "oarlock/qa/checks/whole.py": _CHECKS,
    "oarlock/segmentation/clean_up.py": ("segmentation/test_clean_up.py",),
    "oarlock/segmentation/edges.py": ("segmentation/test_edges_reference.py",),
    "oarlock/segmentation/to_ct_grid.py": ("segmentation/test_to_ct_grid_reference.py",),
    "oarlock/segmentation/within_skin.py": ("segmentation/test_within_skin_stated.py",),
}
"""Test files relative to ``tests/``, those that are most likely to notice first."""
