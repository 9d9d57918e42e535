"""What the commands of ``oarlock`` end with."""

from typing import Final

GOOD: Final = 0
FINDINGS: Final = 1
UNUSABLE: Final = 2
"""The input, the settings or the installation cannot be used; a sentence on stderr says why."""
