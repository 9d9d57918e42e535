"""What the door asks of an upload.

One complete CT series of a patient in Hounsfield units.

:func:`oarlock.ct.series.check_headers` judges the headers; here a few slices are looked at too, and the site's own rules apply.
"""

from collections.abc import Sequence
from pathlib import Path

from oarlock.ct.hounsfield import check_hounsfield
from oarlock.ct.rules import IntakeRules
from oarlock.ct.series import SeriesHeader, check_headers
from oarlock.errors import DerivedImageRefused


def take_in(files: Sequence[Path], rules: IntakeRules) -> SeriesHeader:
    """The one CT series of an upload.

    :raises SeriesError: a leaf of it, with what is wrong and where.
    """
    header = check_headers(files, max_slices=rules.max_slices, refuse_gaps=rules.refuse_gaps)
    derived = [warning for warning in header.warnings if warning.code == "series.derived_image"]
    if derived and rules.refuse_derived:
        raise DerivedImageRefused(reason=derived[0].detail)
    check_hounsfield(header)
    return header
