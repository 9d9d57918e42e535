"""What a site chooses to refuse at the door.

A value, so that the settings can hold it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """What a site refuses.

    :ivar refuse_gaps: slices that must be missing by what the others say; else a warning names them.
    :ivar refuse_derived: series that are not a plain CT by their own words; else a warning names what they are.
    """

    max_slices: int = 1024
    refuse_gaps: bool = True
    refuse_derived: bool = False
