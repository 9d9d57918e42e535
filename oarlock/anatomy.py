"""What normal anatomy looks like: the limits of the checks in :mod:`oarlock.plausibility`.

Measured on 42 sets of contours (21 scans of adults with head and neck cancer, each drawn by two raters) that were released with
the paper (google-deepmind/tcia-ct-scan-dataset, CC BY 4.0). ``python -m benchmarks.anatomy FOLDER`` prints the two tables; the
method, what 21 patients cannot tell, and how often the limits are wrong about patients they were not made from are in
``docs/qa.md``. Positions are patient millimetres: x to the left, y to the back, z to the head.
"""

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Norm:
    """The limits of one organ.

    :param volume_ml: median volume of the organs that no scan cuts.
    :param volume_spread: standard deviation of the logarithm of the volume.
    :param volume_range_ml: smallest and largest volume seen.
    :param position_mm: (x, y, z) in the mean anatomy, seen from the centre of the brainstem.
    :param off_mm: (x, y, z) red limits of the distance from where the five nearest organs would have it.
    :param faces: red limits of the end faces (foot, head, front, back, right, left); above 1 where an end may be flat.
    """

    volume_ml: float
    volume_spread: float
    volume_range_ml: tuple[float, float]
    position_mm: tuple[float, float, float]
    off_mm: tuple[float, float, float]
    faces: tuple[float, float, float, float, float, float]

    def volume_limits_ml(self) -> tuple[float, float, float, float]:
        """(red below, amber below, amber above, red above)."""
        factor = math.exp(4.5 * self.volume_spread)
        low, high = self.volume_range_ml
        amber = math.exp(2.5 * self.volume_spread)
        return (
            min(self.volume_ml / factor, low / 1.4),
            min(self.volume_ml / amber, low),
            max(self.volume_ml * amber, high),
            max(self.volume_ml * factor, high * 1.4),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """The limits of the two sides of one organ against each other.

    :param usual, implausible: factors between the two volumes, above which the smaller one is amber and red.
    :param off_mm: (x, y, z) red limits of how far one side is from the mirror image of the other.
    """

    usual: float
    implausible: float
    off_mm: tuple[float, float, float]


NORMS: Final[dict[str, Norm]] = {
    "Brain": Norm(1.39e03, 0.08, (1211.0, 1617.0), (0.0, 6.86, 39.2), (10.0, 15.2, 12.3), (0.3, 0.3, 0.3, 0.3, 0.3, 0.3)),
    "Brainstem": Norm(28.7, 0.09, (22.48, 34.06), (0.0, 0.0, 0.0), (10.0, 10.0, 10.0), (0.44, 2.0, 0.3, 0.3, 0.3, 0.3)),
    "Cochlea_L": Norm(0.0572, 0.37, (0.02384, 0.1636), (33.8, -9.67, -4.75), (10.0, 13.8, 10.2), (2.0, 2.0, 2.0, 2.0, 2.0, 2.0)),
    "Cochlea_R": Norm(0.0572, 0.37, (0.02384, 0.1636), (-33.8, -9.67, -4.75), (10.0, 13.8, 10.2), (2.0, 2.0, 2.0, 2.0, 2.0, 2.0)),
    "Glnd_Lacrimal_L": Norm(
        0.64, 0.26, (0.2521, 1.193), (44.3, -75.4, 30.1), (10.0, 10.0, 14.0), (2.0, 2.0, 0.69, 0.76, 0.59, 0.86)
    ),
    "Glnd_Lacrimal_R": Norm(
        0.64, 0.26, (0.2521, 1.193), (-44.3, -75.4, 30.1), (10.0, 10.0, 14.0), (2.0, 2.0, 0.69, 0.76, 0.86, 0.59)
    ),
    "Lens_L": Norm(0.216, 0.34, (0.05042, 0.3133), (32.5, -88.2, 27.9), (10.0, 10.0, 10.0), (2.0, 2.0, 2.0, 2.0, 2.0, 2.0)),
    "Lens_R": Norm(0.216, 0.34, (0.05042, 0.3133), (-32.5, -88.2, 27.9), (10.0, 10.0, 10.0), (2.0, 2.0, 2.0, 2.0, 2.0, 2.0)),
    "Lung_L": Norm(1.58e03, 0.50, (900.7, 1995.0), (55.5, 15.8, -211.0), (35.1, 40.1, 34.7), (0.3, 0.3, 0.3, 0.3, 0.3, 0.3)),
    "Lung_R": Norm(1.58e03, 0.50, (900.7, 1995.0), (-55.5, 15.8, -211.0), (35.1, 40.1, 34.7), (0.3, 0.3, 0.3, 0.3, 0.3, 0.3)),
    "Bone_Mandible": Norm(67.5, 0.22, (40.39, 93.74), (-0.0, -71.5, -56.8), (14.0, 14.0, 18.1), (0.45, 0.3, 0.3, 0.3, 0.3, 0.3)),
    "OpticNrv_L": Norm(0.755, 0.28, (0.2718, 1.267), (21.5, -56.2, 22.9), (10.0, 10.0, 13.0), (2.0, 2.0, 2.0, 0.6, 0.71, 0.77)),
    "OpticNrv_R": Norm(0.755, 0.28, (0.2718, 1.267), (-21.5, -56.2, 22.9), (10.0, 10.0, 13.0), (2.0, 2.0, 2.0, 0.6, 0.77, 0.71)),
    "Eye_L": Norm(8.7, 0.12, (5.683, 10.72), (31.9, -80.8, 27.0), (10.0, 10.0, 10.0), (0.73, 0.77, 0.35, 0.3, 0.32, 0.3)),
    "Eye_R": Norm(8.7, 0.12, (5.683, 10.72), (-31.9, -80.8, 27.0), (10.0, 10.0, 10.0), (0.73, 0.77, 0.35, 0.3, 0.3, 0.32)),
    "Parotid_L": Norm(29.9, 0.34, (13.2, 52.48), (57.6, -25.1, -42.0), (14.0, 14.0, 14.0), (0.55, 0.75, 0.3, 0.3, 0.3, 0.3)),
    "Parotid_R": Norm(29.9, 0.34, (13.2, 52.48), (-57.6, -25.1, -42.0), (14.0, 14.0, 14.0), (0.55, 0.75, 0.3, 0.3, 0.3, 0.3)),
    "SpinalCanal": Norm(165, 0.50, (150.8, 179.3), (-0.0, 2.91, -63.7), (10.0, 10.0, 14.0), (2.0, 2.0, 0.3, 0.3, 0.3, 0.3)),
    "SpinalCord": Norm(40.4, 0.50, (39.58, 45.54), (-0.0, 3.25, -66.6), (10.0, 10.5, 14.0), (2.0, 2.0, 0.3, 0.31, 0.3, 0.3)),
    "Glnd_Submand_L": Norm(
        8.58, 0.37, (1.011, 21.1), (31.7, -45.9, -81.8), (11.7, 14.0, 14.3), (0.7, 0.74, 0.3, 0.31, 0.32, 0.3)
    ),
    "Glnd_Submand_R": Norm(
        8.58, 0.37, (1.011, 21.1), (-31.7, -45.9, -81.8), (11.7, 14.0, 14.3), (0.7, 0.74, 0.3, 0.31, 0.3, 0.32)
    ),
}

PAIRS: Final[dict[str, Pair]] = {
    "Cochlea": Pair(1.66, 2.28, (10.6, 11.2, 12.3)),
    "Glnd_Lacrimal": Pair(1.45, 2.11, (13.4, 14.0, 10.1)),
    "Lens": Pair(1.57, 2.91, (10.0, 10.0, 10.0)),
    "Lung": Pair(1.2, 1.35, (33.5, 30.4, 30.0)),
    "OpticNrv": Pair(1.42, 3.48, (13.0, 14.0, 10.0)),
    "Eye": Pair(1.15, 1.35, (10.0, 10.0, 10.0)),
    "Parotid": Pair(1.21, 1.35, (16.6, 18.4, 13.2)),
    "Glnd_Submand": Pair(1.72, 14.2, (12.8, 14.0, 12.7)),
}
"""By the name of the organ without its side."""
