"""What normal anatomy looks like: the limits of the checks in :mod:`oarlock.qa.plausibility`.

Measured on 42 sets of contours (21 scans of adults with head and neck cancer, each drawn by two raters) that were released with
the paper (google-deepmind/tcia-ct-scan-dataset, CC BY 4.0), and on the CT of 11 of these scans and of 200 patients of OpenKBP
(MIT). ``python -m tools.derive_norms`` prints the tables; the method, what so few patients cannot tell, and how often the limits
are wrong about patients they were not made from are in ``docs/qa.md``. Positions are patient millimetres: x to the left, y to the
back, z to the head.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from oarlock.arrays import FloatArray

USUAL: Final = 0.95
PLAUSIBLE: Final = 0.999
"""Shares of all patients that the amber and the red limits are to hold."""

PLAUSIBLE_NEAR: Final = 0.99
"""The same for the red limits of places and of halves: what is to be found lies too near for more."""


FEW: Final = 15
"""Of fewer whole organs the spread is taken as a half at least, and the factor as that of so many."""


def tolerance_factor(patients: int, content: float) -> float:
    """Standard deviations within which a share of all patients lies.

    From the mean, with 95 % confidence.

    Howe 1969 for a normal value whose mean and deviation are only known from so many patients; χ² by Wilson and Hilferty 1931. It
    falls to the normal quantile (1.96 for a share of 0.95) as their number grows.
    """
    freedom = max(patients, 2) - 1
    z = NormalDist().inv_cdf
    chi2 = freedom * (1 - 2 / (9 * freedom) + z(0.05) * math.sqrt(2 / (9 * freedom))) ** 3
    return z((1 + content) / 2) * math.sqrt((1 + 1 / max(patients, 2)) * freedom / chi2)


def tolerance_factor_above(patients: int, content: float) -> float:
    """The same where only large values are unlikely (Natrella 1963).

    How many standard deviations above the mean.
    """
    freedom, z = max(patients, 2) - 1, NormalDist().inv_cdf
    a = 1 - z(0.95) ** 2 / (2 * freedom)
    b = z(content) ** 2 - z(0.95) ** 2 / (freedom + 1)
    return (z(content) + math.sqrt(z(content) ** 2 - a * b)) / a


@dataclass(frozen=True, slots=True)
class Norm:
    """The limits of one organ.

    :param volume_ml: median volume of the organs that no scan cuts.
    :param volume_spread: standard deviation of the logarithm of the volume.
    :param volume_range_ml: smallest and largest volume seen.
    :param patients: of how many patients the volume is known.
    :param position_mm: (x, y, z) in the mean anatomy, seen from the centre of the brainstem.
    :param off_usual_mm, off_mm: (x, y, z) amber and red limits of the distance from where the five nearest organs would have it.
    :param faces: red limits of the end faces (foot, head, front, back, right, left); above 1 where an end may be flat.
    :param placed: of how many patients the place is known, and the faces.
    """

    volume_ml: float
    volume_spread: float
    volume_range_ml: tuple[float, float]
    position_mm: tuple[float, float, float]
    off_usual_mm: tuple[float, float, float]
    off_mm: tuple[float, float, float]
    faces: tuple[float, float, float, float, float, float]
    patients: int
    placed: int

    def volume_limits_ml(self) -> tuple[float, float, float, float]:
        """(red below, amber below, amber above, red above) in ml.

        They are tolerance intervals, and what was seen is not red.
        """
        amber, red = (
            math.exp(tolerance_factor(max(self.patients, FEW), share) * self.volume_spread) for share in (USUAL, PLAUSIBLE)
        )
        low, high = self.volume_range_ml
        return (
            min(self.volume_ml / red, low / 1.1),
            min(self.volume_ml / amber, low),
            max(self.volume_ml * amber, high),
            max(self.volume_ml * red, high * 1.1),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """The limits of the two sides of one organ against each other.

    :param usual, implausible: factors between the two volumes, above which the smaller one is amber and red.
    :param off_usual_mm, off_mm: (x, y, z) amber and red limits of how far one side is from the mirror image of the other.
    :param patients: of how many patients the two sides are known.
    """

    usual: float
    implausible: float
    off_usual_mm: tuple[float, float, float]
    off_mm: tuple[float, float, float]
    patients: int


@dataclass(frozen=True, slots=True)
class Halving:
    """What tells half an organ from a whole one.

    For an organ with a twin.

    :param weights: for each half that may be missing (outer, inner, front, back, upper, lower) the direction in which the seven
        features of :func:`oarlock.qa.plausibility.half_features` move then, seen through the natural covariance of whole organs
        (Fisher's linear discriminant), in units of the red limit.
    """

    weights: tuple[tuple[float, ...], ...]

    def scores(self, features: FloatArray) -> FloatArray:
        """(6,) scores, one for each half that may be missing.

        0 for an organ that is the mirror image of its twin, 1 at the red limit.
        """
        return np.asarray(np.array(self.weights) @ features)


@dataclass(frozen=True, slots=True)
class TissueRange:
    """What is seen on a CT, and its range of HU.

    Both ends are included.
    """

    name: str
    low_hu: int
    high_hu: int

    @property
    def said(self) -> str:
        """Name and Hounsfield units, as a sentence has them."""
        limits = f"{self.low_hu} to {self.high_hu} HU" if self.high_hu < MOST_HU else f"{self.low_hu} HU or more"
        return f"{self.name} ({limits})"


@dataclass(frozen=True, slots=True)
class TissueNorm:
    """What an organ consists of.

    :param usual, implausible: shares of its voxels that are of the tissue; below them an organ is amber and red.
    """

    tissue: TissueRange
    usual: float
    implausible: float


NORMS: Final[dict[str, Norm]] = {
    "Brain": Norm(
        1.39e03,
        0.08,
        (1211.0, 1617.0),
        (0.0, 6.86, 39.2),
        (8.0, 13.7, 10.4),
        (10.0, 18.0, 13.6),
        (0.3, 0.3, 0.3, 0.3, 0.3, 0.3),
        19,
        19,
    ),
    "Brainstem": Norm(
        28.7, 0.10, (22.48, 34.06), (0.0, 0.0, 0.0), (8.0, 8.0, 8.0), (10.0, 10.0, 10.0), (0.38, 2.0, 0.3, 0.3, 0.3, 0.3), 20, 20
    ),
    "Cochlea_L": Norm(
        0.0572,
        0.38,
        (0.02384, 0.1636),
        (33.8, -9.67, -4.75),
        (8.0, 8.0, 8.0),
        (10.0, 10.1, 10.0),
        (2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
        20,
        20,
    ),
    "Cochlea_R": Norm(
        0.0572,
        0.38,
        (0.02384, 0.1636),
        (-33.8, -9.67, -4.75),
        (8.0, 8.0, 8.0),
        (10.0, 10.1, 10.0),
        (2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
        20,
        20,
    ),
    "Glnd_Lacrimal_L": Norm(
        0.64,
        0.27,
        (0.2521, 1.193),
        (44.3, -75.4, 30.1),
        (8.0, 8.0, 9.29),
        (10.0, 10.0, 13.8),
        (2.0, 2.0, 0.59, 0.69, 0.5, 0.86),
        20,
        20,
    ),
    "Glnd_Lacrimal_R": Norm(
        0.64,
        0.27,
        (0.2521, 1.193),
        (-44.3, -75.4, 30.1),
        (8.0, 8.0, 9.29),
        (10.0, 10.0, 13.8),
        (2.0, 2.0, 0.59, 0.69, 0.86, 0.5),
        20,
        20,
    ),
    "Lens_L": Norm(
        0.216,
        0.35,
        (0.05042, 0.3133),
        (32.5, -88.2, 27.9),
        (8.0, 8.0, 8.0),
        (10.0, 10.0, 10.0),
        (2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
        20,
        20,
    ),
    "Lens_R": Norm(
        0.216,
        0.35,
        (0.05042, 0.3133),
        (-32.5, -88.2, 27.9),
        (8.0, 8.0, 8.0),
        (10.0, 10.0, 10.0),
        (2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
        20,
        20,
    ),
    "Lung_L": Norm(
        1.58e03,
        0.50,
        (900.7, 1995.0),
        (55.5, 15.8, -211.0),
        (24.0, 34.9, 24.8),
        (30.0, 45.9, 32.5),
        (0.52, 0.3, 0.3, 0.3, 0.3, 0.3),
        2,
        20,
    ),
    "Lung_R": Norm(
        1.58e03,
        0.50,
        (900.7, 1995.0),
        (-55.5, 15.8, -211.0),
        (24.0, 34.9, 24.8),
        (30.0, 45.9, 32.5),
        (0.52, 0.3, 0.3, 0.3, 0.3, 0.3),
        2,
        20,
    ),
    "Bone_Mandible": Norm(
        67.5,
        0.22,
        (40.39, 93.74),
        (-0.0, -71.5, -56.8),
        (8.56, 13.3, 18.5),
        (11.8, 17.5, 24.3),
        (0.51, 0.32, 0.32, 0.3, 0.3, 0.3),
        20,
        20,
    ),
    "OpticNrv_L": Norm(
        0.755,
        0.29,
        (0.2718, 1.267),
        (21.5, -56.2, 22.9),
        (8.0, 8.0, 8.0),
        (10.0, 10.0, 10.3),
        (2.0, 2.0, 2.0, 0.47, 0.52, 0.59),
        20,
        20,
    ),
    "OpticNrv_R": Norm(
        0.755,
        0.29,
        (0.2718, 1.267),
        (-21.5, -56.2, 22.9),
        (8.0, 8.0, 8.0),
        (10.0, 10.0, 10.3),
        (2.0, 2.0, 2.0, 0.47, 0.59, 0.52),
        20,
        20,
    ),
    "Eye_L": Norm(
        8.7,
        0.13,
        (5.683, 10.72),
        (31.9, -80.8, 27.0),
        (8.0, 8.0, 8.0),
        (10.0, 10.0, 10.0),
        (0.66, 0.76, 0.36, 0.37, 0.39, 0.4),
        20,
        20,
    ),
    "Eye_R": Norm(
        8.7,
        0.13,
        (5.683, 10.72),
        (-31.9, -80.8, 27.0),
        (8.0, 8.0, 8.0),
        (10.0, 10.0, 10.0),
        (0.66, 0.76, 0.36, 0.37, 0.4, 0.39),
        20,
        20,
    ),
    "Parotid_L": Norm(
        29.9,
        0.35,
        (13.2, 52.48),
        (57.6, -25.1, -42.0),
        (12.6, 11.9, 15.6),
        (16.5, 15.6, 20.5),
        (0.49, 0.58, 0.3, 0.3, 0.3, 0.3),
        20,
        20,
    ),
    "Parotid_R": Norm(
        29.9,
        0.35,
        (13.2, 52.48),
        (-57.6, -25.1, -42.0),
        (12.6, 11.9, 15.6),
        (16.5, 15.6, 20.5),
        (0.49, 0.58, 0.3, 0.3, 0.3, 0.3),
        20,
        20,
    ),
    "SpinalCanal": Norm(
        165,
        0.50,
        (150.8, 179.3),
        (-0.0, 2.91, -63.7),
        (8.0, 9.12, 17.0),
        (10.0, 12.0, 22.4),
        (2.0, 2.0, 0.3, 0.3, 0.3, 0.3),
        1,
        20,
    ),
    "SpinalCord": Norm(
        40.4,
        0.50,
        (39.58, 45.54),
        (-0.0, 3.25, -66.6),
        (8.0, 8.93, 16.3),
        (10.0, 11.7, 21.5),
        (2.0, 2.0, 0.41, 0.32, 0.3, 0.3),
        1,
        20,
    ),
    "Glnd_Submand_L": Norm(
        8.58,
        0.38,
        (1.011, 21.1),
        (31.7, -45.9, -81.8),
        (8.0, 13.6, 15.0),
        (10.1, 17.8, 19.7),
        (0.73, 0.72, 0.3, 0.33, 0.3, 0.3),
        18,
        18,
    ),
    "Glnd_Submand_R": Norm(
        8.58,
        0.38,
        (1.011, 21.1),
        (-31.7, -45.9, -81.8),
        (8.0, 13.6, 15.0),
        (10.1, 17.8, 19.7),
        (0.73, 0.72, 0.3, 0.33, 0.3, 0.3),
        18,
        18,
    ),
}

PAIRS: Final[dict[str, Pair]] = {
    "Cochlea": Pair(2.04, 3.3, (10.8, 9.35, 8.94), (14.2, 12.3, 11.7), 20),
    "Glnd_Lacrimal": Pair(1.75, 2.55, (12.0, 12.0, 8.0), (15.8, 15.8, 10.0), 20),
    "Lens": Pair(1.88, 2.87, (9.75, 8.53, 8.0), (12.8, 11.2, 10.0), 20),
    "Lung": Pair(1.41, 1.78, (25.0, 24.0, 24.0), (32.9, 30.0, 30.0), 20),
    "OpticNrv": Pair(1.72, 2.49, (9.3, 9.74, 8.0), (12.2, 13.1, 10.0), 20),
    "Eye": Pair(1.15, 1.35, (9.0, 8.53, 8.0), (11.8, 11.2, 10.0), 20),
    "Parotid": Pair(1.31, 1.58, (23.3, 14.4, 11.1), (30.6, 18.9, 14.6), 20),
    "Glnd_Submand": Pair(2.84, 6.67, (9.67, 12.5, 10.4), (12.7, 16.4, 13.7), 18),
}
HALVES: Final[dict[str, Halving]] = {
    "Cochlea": Halving(
        (
            (-0.742, -2.87, 0.466, 0.389, -0.00189, 0.00166, -0.00663),
            (-0.446, -2.35, 0.338, 0.216, 0.00223, 0.00225, -0.00441),
            (-0.564, -1.34, -1.07, 0.591, 0.00299, 0.0229, 0.00122),
            (-0.344, 0.339, -1.45, 0.28, -1.82e-05, 0.00519, 0.00721),
            (-1.27, -0.427, 0.971, -0.409, 0.000553, -0.0364, -0.0192),
            (-0.894, -0.00363, 0.832, -0.826, 0.00194, -0.0462, 0.00552),
        )
    ),
    "Glnd_Lacrimal": Halving(
        (
            (-2.26, -0.733, 1.78, 2.2, -0.00418, 0.0412, 0.000162),
            (-1.57, -0.834, 0.936, 0.824, 0.00743, 0.0297, -0.0371),
            (-0.53, 0.0531, -1.04, 0.171, 0.000105, 0.00989, -0.00642),
            (-0.9, 0.385, -1.08, 0.344, 0.00268, -0.00827, -0.0098),
            (-0.778, 0.566, 0.302, -1.78, 0.00357, -0.0153, -0.0569),
            (-0.48, 0.754, 0.249, -1.73, -0.000923, -0.0228, -0.00369),
        )
    ),
    "Lens": Halving(
        (
            (0.0555, -3.23, 0.793, 0.594, -0.00362, -0.00598, -0.015),
            (0.0507, -3.24, 0.805, 0.583, 0.00268, -0.00587, -0.0151),
            (-0.945, 2.29, -2.26, 0.606, -0.00054, 0.0168, 0.0459),
            (-0.785, 2.28, -2.34, 0.488, -0.00102, 0.00944, 0.0471),
            (-0.974, 2.78, 0.434, -1.32, -0.00135, -0.00104, -0.00953),
            (-0.939, 2.73, -0.0415, -1.24, -0.00134, -0.00602, 0.053),
        )
    ),
    "OpticNrv": Halving(
        (
            (-1.2, -0.617, -0.35, -0.204, -0.0124, 0.106, -0.0547),
            (-0.237, -0.068, -1.44, -0.261, 0.0156, 0.00301, -0.0392),
            (-1.01, -0.504, -0.696, -0.291, -0.0107, 0.095, -0.0547),
            (-0.105, 0.139, -1.91, -0.306, 0.0143, -0.0124, -0.0412),
            (-0.973, -0.485, -0.323, -1.04, -0.00441, 0.0727, -0.0488),
            (-0.449, 0.0201, -0.657, -0.866, 0.0108, 0.00239, 0.023),
        )
    ),
    "Eye": Halving(
        (
            (-0.649, -2.56, 1.58, 0.131, -0.000981, 0.000893, -0.00236),
            (-0.655, -2.56, 1.63, 0.138, 0.00105, 0.000825, -0.00244),
            (-0.684, 1.49, -2.46, 0.244, 4.47e-05, 0.00694, 0.00317),
            (-0.769, 1.64, -2.49, 0.303, 1.24e-05, 0.00524, 0.00345),
            (-3.28, 1.12, 1.06, 0.456, 0.000158, 0.00529, 0.000881),
            (-2.86, 1.19, 0.907, 0.18, 0.000105, 0.00394, 0.0221),
        )
    ),
    "Parotid": Halving(
        (
            (-1.96, -1.56, -0.218, 0.72, -0.00247, 0.00434, -0.000852),
            (-0.722, -1.91, -0.172, 0.316, 0.00132, 0.00167, -0.00259),
            (-2.07, 0.378, -0.678, 0.359, 3.52e-05, 0.0144, 0.027),
            (-2.78, 0.964, 0.0274, 1.01, 0.000128, -0.00471, 0.0241),
            (-2.1, 0.492, 0.479, -1.13, -0.00053, 0.00806, -0.00813),
            (-1.52, 1.25, 0.449, -0.879, 0.00034, 0.00501, 0.0253),
        )
    ),
    "Glnd_Submand": Halving(
        (
            (-0.0378, -2.98, 1.34, 0.0571, -0.0145, -0.0194, 0.00627),
            (-0.078, -3.02, 1.11, 0.221, 0.0232, -0.00469, 0.0273),
            (-0.523, 1.97, -2.13, 1.54, 0.00808, 0.0563, -0.00188),
            (-0.495, 1.43, -1.7, 1.05, -0.00668, 0.0119, -0.0134),
            (0.104, 0.0408, 1.04, -2.18, -0.00451, -0.042, -0.0401),
            (0.0144, -0.514, 0.72, -1.28, 0.00936, -0.0181, 0.035),
        )
    ),
}
"""By the name of the organ without its side."""

MOST_HU: Final = 32767
"""What is no limit."""

AIRY: Final = TissueRange("air filled lung", -1000, -300)
SOFT: Final = TissueRange("soft tissue", -60, 160)
FATTY: Final = TissueRange("soft tissue or fat", -160, 200)
BONE: Final = TissueRange("bone", 200, MOST_HU)

TISSUES: Final[dict[str, TissueNorm]] = {
    "Brain": TissueNorm(SOFT, 0.889, 0.834),
    "Brainstem": TissueNorm(SOFT, 0.974, 0.958),
    "Cochlea_L": TissueNorm(BONE, 0.761, 0.694),
    "Cochlea_R": TissueNorm(BONE, 0.761, 0.694),
    "Glnd_Lacrimal_L": TissueNorm(FATTY, 0.599, 0.517),
    "Glnd_Lacrimal_R": TissueNorm(FATTY, 0.599, 0.517),
    "Lens_L": TissueNorm(SOFT, 0.950, 0.900),
    "Lens_R": TissueNorm(SOFT, 0.950, 0.900),
    "Lung_L": TissueNorm(AIRY, 0.868, 0.811),
    "Lung_R": TissueNorm(AIRY, 0.868, 0.811),
    "Bone_Mandible": TissueNorm(BONE, 0.659, 0.614),
    "OpticNrv_L": TissueNorm(FATTY, 0.793, 0.729),
    "OpticNrv_R": TissueNorm(FATTY, 0.793, 0.729),
    "Eye_L": TissueNorm(SOFT, 0.943, 0.892),
    "Eye_R": TissueNorm(SOFT, 0.943, 0.892),
    "Parotid_L": TissueNorm(FATTY, 0.937, 0.918),
    "Parotid_R": TissueNorm(FATTY, 0.937, 0.918),
    "SpinalCanal": TissueNorm(FATTY, 0.814, 0.751),
    "SpinalCord": TissueNorm(SOFT, 0.815, 0.785),
    "Glnd_Submand_L": TissueNorm(SOFT, 0.904, 0.849),
    "Glnd_Submand_R": TissueNorm(SOFT, 0.904, 0.849),
}

LUNG_TOPS_MM: Final = 11.2
"""Red limit of the difference in height of the two lungs' tops."""
