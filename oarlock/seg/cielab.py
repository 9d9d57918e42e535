"""Colours as DICOM Segmentations state them (PS3.3 C.10.7.1.1).

CIELab under D50 in 16 bits.
"""

from typing import Final

import numpy as np

_TO_XYZ: Final = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
"""Linear sRGB to CIE XYZ under D50, Bradford-adapted (Lindbloom, "RGB/XYZ Matrices")."""


def to_cielab(rgb: tuple[int, int, int]) -> list[int]:
    """L*, a*, b* of an sRGB colour (0 to 255).

    Each is scaled to 0 to 65535 as Recommended Display CIELab Value has it.
    """
    share = np.array(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = _TO_XYZ @ linear / _TO_XYZ.sum(axis=1)
    fx, fy, fz = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    scaled = np.array([(116 * fy - 16) * 655.35, (500 * (fx - fy) + 128) * 257, (200 * (fy - fz) + 128) * 257])
    return [int(value) for value in np.rint(np.clip(scaled, 0, 65535))]
