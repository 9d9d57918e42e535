"""A schematic head and neck, all given by formulas.

What tissue lies where, and the 21 OARs in it.

The frame is the body's own: mm from the centre of the brainstem, x to the patient's left, y to the back, z to the head. Sizes and
places are those of an adult, so that a network trained on real heads may recognise them: volumes are near the medians of the
expert contours released with the paper, and what belongs to an organ follows the paper's Table 2.

A tissue that comes later in a list replaces what was painted before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from oarlock.arrays import FloatArray, Mask
from oarlock.organs.catalogue import Laterality
from oarlock.phantom.solids import Point, Points, Section, Solid, bubbles, ellipsoid, loft, reflected, slab, tube, union

AIR_HU = -1000
FLOOR_MM = -330.0
"""The lofts go down to here; a scan that reaches further down shows the body cut off."""


@dataclass(frozen=True)
class FilledSolid:
    """A solid filled with one value."""

    solid: Solid
    hu: float


def _sides(solid: Solid) -> Iterator[Solid]:
    """A solid of the left side, and its mirror image on the right."""
    yield solid
    yield reflected(solid)


def _pair(solid: Solid, hu: float) -> list[FilledSolid]:
    return [FilledSolid(side, hu) for side in _sides(solid)]


# ── the outside ───────────────────────────────────────────────────────────────────────────────────────────────────────

_HEAD = (
    Section(111, 0, -8, 10, -30, 14),
    Section(108, 0, -8, 26, -46, 27),
    Section(100, 0, -5, 45, -66, 45),
    Section(90, 0, -2, 59, -82, 60),
    Section(76, 0, 2, 69, -94, 72),
    Section(60, 0, 5, 75, -101, 79, 2.1, 2.1),
    Section(42, 0, 8, 78, -102, 82, 2.3, 2.1),
    Section(24, 0, 8, 78, -97, 81, 2.6, 2.1),
    Section(6, 0, 6, 77, -99, 76, 2.4, 2.1),
    Section(-12, 0, 0, 77, -104, 66, 2.1, 2.2),
    Section(-28, 0, -6, 75, -109, 58, 1.9, 2.2),
    Section(-46, 0, -10, 72, -114, 53, 1.7, 2.2),
    Section(-64, 0, -12, 67, -117, 53, 1.6, 2.2),
    Section(-80, 0, -10, 62, -112, 54, 1.6, 2.2),
    Section(-92, 0, -4, 60, -88, 56, 1.7, 2.2),
    Section(-104, 0, 0, 60, -72, 60, 1.9, 2.1),
    Section(-125, 0, 6, 66, -64, 70, 2.0, 2.0),
    Section(-160, 0, 10, 80, -60, 90, 2.0, 2.0),
)
_TORSO = (
    Section(-106, 0, 36, 40, 14, 58, 1.8, 1.8),
    Section(-116, 0, 30, 104, 0, 72, 1.6, 1.8),
    Section(-128, 0, 26, 160, -24, 88, 1.6, 2.0),
    Section(-144, 0, 24, 192, -46, 104, 1.8, 2.3),
    Section(-170, 0, 26, 206, -62, 113, 2.0, 2.8),
    Section(-210, 0, 30, 212, -84, 115, 2.3, 3.2),
    Section(-260, 0, 30, 214, -106, 115, 2.5, 3.4),
    Section(FLOOR_MM, 0, 30, 214, -116, 115, 2.6, 3.4),
)


def _body(grown_mm: float) -> Solid:
    nose = tube([(0, -96, 16), (0, -112, -2), (0, -118, -9)], [6 + grown_mm, 9 + grown_mm, 9 + grown_mm])
    return loft(_HEAD, grown_mm=grown_mm) | loft(_TORSO, grown_mm=grown_mm) | nose


_FAT_MM = 6.5
"""How deep the head's muscles lie below the skin's surface."""


def _outside() -> list[FilledSolid]:
    """Skin, the fat below it, and muscle wherever nothing else comes."""
    ear = tube([(78, 10, 22), (82, 8, 4), (78, 2, -16)], [4, 5, 4], stretch=(0.7, 2.4, 1))
    inner = loft(_HEAD, grown_mm=-_FAT_MM) | loft(_TORSO, grown_mm=-9)
    return [*_pair(ear, -20), FilledSolid(_body(0), 15), FilledSolid(_body(-2), -95), FilledSolid(inner, 55)]


def couch() -> list[FilledSolid]:
    """A carbon table top with a foam core, and head rest.

    They do not turn with the patient.
    """
    return [
        FilledSolid(slab((-265, 118, FLOOR_MM), (265, 158, 200)), 60),
        FilledSolid(slab((-262, 121, FLOOR_MM), (262, 155, 200)), -945),
        FilledSolid(slab((-75, 40, -90), (75, 118, 95)), -925),
    ]


# ── the cranium ───────────────────────────────────────────────────────────────────────────────────────────────────────

_CAVITY = (
    Section(102, 0, -8, 12, -22, 12),
    Section(98, 0, -7, 27, -42, 31),
    Section(90, 0, -5, 42, -60, 48),
    Section(78, 0, -3, 54, -76, 60),
    Section(62, 0, 0, 62, -87, 69, 2.1, 2.1),
    Section(46, 0, 4, 65, -86, 73, 2.1, 2.1),
    Section(34, 0, 6, 66, -66, 73, 2.0, 2.1),
    Section(22, 0, 6, 66, -44, 72, 2.6, 2.1),
    Section(10, 0, 10, 62, -33, 69, 2.8, 2.1),
    Section(-2, 0, 14, 54, -17, 63, 2.2, 2.1),
    Section(-14, 0, 16, 46, -12, 56, 2.0, 2.1),
    Section(-26, 0, 16, 37, -9, 47),
    Section(-34, 0, 14, 22, -6, 33),
    Section(-37, 0, 12, 14, -2, 24),
)
_BRAINSTEM = (
    Section(21, 0, -1, 11, -8, 7),
    Section(15, 0, 0, 15, -11, 11),
    Section(2, 0, 0, 17.5, -14.5, 13),
    Section(-8, 0, 0, 15.5, -13.5, 12.5),
    Section(-20, 0, 1, 10, -8.5, 10),
    Section(-38, 0, 1, 7, -5, 7),
)


def _cranium(brainstem: Solid) -> list[FilledSolid]:
    ventricle = tube([(7, -38, 48), (9, -18, 54), (13, 14, 50), (18, 30, 40)], [4, 4, 4.5, 3.5], stretch=(1, 1, 1.4))
    cistern = loft(_BRAINSTEM, grown_mm=3) & slab((-30, -30, -40), (30, 2, 25))
    # The base of the skull is held up by bone in front of the posterior fossa: clivus and the body of the sphenoid.
    clivus = tube([(0, -30, 10), (0, -20, -10), (0, -11, -32)], [9, 7, 5], stretch=(1.6, 1, 1))
    foramen_magnum = tube([(0, 3, -28), (0, 2, -60)], 15)
    return [
        FilledSolid(loft(_CAVITY, grown_mm=6.5) - foramen_magnum, 950),
        FilledSolid(loft(_CAVITY, grown_mm=4.5) - (loft(_CAVITY, grown_mm=2) | foramen_magnum), 550),
        FilledSolid(clivus, 500),
        FilledSolid(loft(_CAVITY), 35),
        FilledSolid(slab((-0.9, -90, 20), (0.9, 72, 101)) & loft(_CAVITY), 48),
        *_pair(ventricle, 8),
        FilledSolid(tube([(0, 24, -12), (0, 16, 2)], 4), 8),
        FilledSolid(cistern & loft(_CAVITY), 8),
        FilledSolid(tube([(0, -22, 16), (0, -20, 22)], 6), 8),
        FilledSolid(brainstem, 36),
        *_ear(),
    ]


_PETROUS = tube([(17, -16, 2), (34, -9, -1), (58, 8, -2)], [5, 8, 9])
"""The pyramid of the left side, from its apex to the mastoid."""
_MASTOID = tube([(52, 5, -4), (59, 8, -12), (57, 4, -30)], [9, 11, 7])
_COCHLEA = ellipsoid((34, -15, -2), (2.7, 2.5, 2.5))


def _ear() -> list[FilledSolid]:
    """Spongy pyramid, the hard capsule of the inner ear in it, the mastoid's cells, and the air of the middle ear."""
    capsule = tube([(30, -13, -3), (42, -2, -2)], [7, 7.5])
    cells = bubbles(tube([(50, 3, -2), (59, 8, -10), (57, 4, -27)], [7, 8.5, 4.5]), apart_mm=5.5, radius_mm=2.4)
    nerve_canal = tube([(15, -5, 0), (29, -8, -1)], 3.5)
    return [
        *_pair(_PETROUS, 600),
        *_pair(_MASTOID, 800),
        *_pair(cells, -900),
        *_pair(capsule, 2000),
        *_pair(ellipsoid((40, -3, -1), (2.2, 2.2, 3)), 100),
        *_pair(tube([(84, -3, -3), (54, -6, -3)], 3.5), -950),
        *_pair(ellipsoid((42, -14, -4), (4, 6, 6)), -900),
        *_pair(nerve_canal, 10),
        *_pair(_COCHLEA, 300),
    ]


# ── the face ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_EYE: Point = (31.5, -77, 24)
_EYE_RADIUS_MM = 12.7


def _orbital_cone(grown_mm: float) -> Solid:
    """The orbit of the left side: from its rim to the optic canal."""
    x, y, z = _EYE
    path = [(x, y - 7, z), (x - 1, y + 5, z), (20, -46, z - 1), (13, -36, z - 1)]
    return tube(path, [17.5 + grown_mm, 18.5 + grown_mm, 8 + grown_mm, 4.5 + grown_mm])


def _orbit() -> tuple[dict[str, Solid], list[FilledSolid]]:
    """Eye, lens, optic nerve and lacrimal gland of the left side, in the fat of their bony cone."""
    x, y, z = _EYE
    eye = ellipsoid(_EYE, (_EYE_RADIUS_MM,) * 3)
    lens = ellipsoid((x, y - 8.6, z), (4.6, 2.45, 4.6))
    nerve = tube([(x - 2, y + 10, z), (22, -52, z - 1), (12, -37, z - 1), (6, -29, z + 1)], 2.2) - eye
    gland = tube([(x + 11, y + 1, z + 10), (x + 14.5, y + 4, z)], [4.2, 4.0]) - ellipsoid(_EYE, (_EYE_RADIUS_MM + 0.7,) * 3)
    under_skin = loft(_HEAD, grown_mm=-2)
    muscles = [
        tube([(x + dx, y + 2, z + dz), (15, -42, z - 1)], 2, stretch=(1, 1, 1.3)) - eye
        for dx, dz in ((12.5, 0), (-12.5, 0), (0, 12.5), (0, -12.5))
    ]
    tissues = [
        FilledSolid(_orbital_cone(2.2) & slab((0, -88, 0), (70, -30, 60)) & under_skin, 650),
        FilledSolid(_orbital_cone(0) & under_skin, -85),
        *(FilledSolid(muscle, 50) for muscle in muscles),
        FilledSolid(gland, 40),
        FilledSolid(nerve, 35),
        FilledSolid(eye, 45),
        FilledSolid(ellipsoid(_EYE, (_EYE_RADIUS_MM - 1.3,) * 3), 10),
        FilledSolid(lens, 90),
    ]
    return {"Eye": eye, "Lens": lens, "OpticNrv": nerve, "Glnd_Lacrimal": gland}, tissues


def _face() -> list[FilledSolid]:
    """Maxilla, cheek bones, palate and the air behind them; the mid line last."""
    maxilla = tube([(0, -100, -27), (16, -94, -27), (27, -74, -26), (29, -58, -24)], 6.5, stretch=(1, 1, 1.2))
    sinus = tube([(26, -72, 0), (28, -70, -12)], [13, 9], stretch=(1, 1.25, 1))
    sinus_wall = tube([(26, -72, 0), (28, -70, -12)], [15, 11], stretch=(1, 1.22, 1))
    cheek = tube([(38, -88, 4), (52, -74, 2), (64, -50, 0), (68, -26, 1), (66, -12, 4)], [6, 5.5, 3.2, 3, 4], stretch=(1, 1, 1.3))
    rim = tube([(50, -76, 6), (51, -72, 22), (49, -78, 40), (38, -92, 47), (20, -96, 44)], [4.5, 4.5, 4, 4, 4])
    buccal = ellipsoid((46, -82, -24), (9, 13, 15))
    pterygoid = tube([(14, -44, 0), (17, -42, -26)], [2.5, 2], stretch=(1, 3, 1))
    return [
        *_pair(buccal & loft(_HEAD, grown_mm=-3), -95),
        *_pair(maxilla, 750),
        *_pair(sinus_wall, 600),
        *_pair(sinus, -980),
        *_pair(cheek & loft(_HEAD, grown_mm=-3), 900),
        *_pair(rim & loft(_HEAD, grown_mm=-3), 850),
        *_pair(pterygoid, 600),
        *_nasal_cavity(),
    ]


def _nasal_cavity() -> list[FilledSolid]:
    airway = tube([(0, -112, -13), (0, -96, -10), (0, -68, -6), (0, -48, -10)], [6, 9, 12, 10], stretch=(1, 1, 1.5))
    turbinate = tube([(5.5, -88, -12), (6.5, -54, -12)], 2.4, stretch=(1, 1, 1.8))
    upper_turbinate = tube([(5, -82, 4), (5.5, -56, 4)], 1.8, stretch=(1, 1, 2))
    cells = [tube([(s * 6.5, y, 16), (s * 7, y, 32)], 4.6) for s in (-1, 1) for y in (-80.0, -69.0, -58.0, -48.0)]
    return [
        FilledSolid(tube([(0, -92, 22), (0, -101, 12), (0, -106, 2)], [5, 4, 3]), 600),
        FilledSolid(tube([(0, -96, -21), (0, -46, -21)], 3, stretch=(7, 1, 1)), 500),
        FilledSolid(slab((-14, -88, 8), (14, -38, 40)), 500),
        FilledSolid(airway, -980),
        *(FilledSolid(cell, -900) for cell in cells),
        *_pair(ellipsoid((7, -31, 12), (6, 9, 9)), -960),
        *_pair(ellipsoid((10, -97, 50), (8, 4, 8)), -950),
        *_pair(turbinate, 60),
        *_pair(upper_turbinate, 60),
        FilledSolid(slab((-1.2, -98, -20), (1.2, -48, 26)), 250),
    ]


_ARCH = ((0.0, -106.0, -68.0), (17.0, -99.0, -67.5), (31.0, -79.0, -65.5), (45.0, -53.0, -60.0))
_RAMUS = (
    Section(-7, 53, -35, 1.5, -41, -29),
    Section(-14, 52.5, -38, 3.6, -54, -25),
    Section(-30, 51, -43, 4.4, -59, -27),
    Section(-48, 49, -47, 5, -64, -30),
    Section(-64, 47, -54, 5.5, -70, -38),
    Section(-74, 44, -61, 3, -69, -53),
)


def _half_mandible(grown_mm: float) -> Solid:
    """Body, ramus, condyle and coronoid process of the left side."""
    body = tube(_ARCH, [5.8 + grown_mm, 5.5 + grown_mm, 5.4 + grown_mm, 5 + grown_mm], stretch=(1, 1, 2.3))
    condyle = tube([(52, -30, -12), (52.5, -24, -3)], [4 + grown_mm, 4.6 + grown_mm], stretch=(1.5, 1, 1))
    coronoid = tube([(52, -51, -16), (51, -55, -5)], [4 + grown_mm, 2 + grown_mm])
    return union([body, loft(_RAMUS, grown_mm=grown_mm), condyle, coronoid])


def _teeth() -> list[FilledSolid]:
    """Seven a quarter, along the arch; the lower ones stand on the mandible and are no part of it."""
    arch = np.array([(3.5, -103), (10, -101), (16, -96.5), (21.5, -90), (26, -82.5), (29.5, -74), (32.5, -65)])
    quarters: list[FilledSolid] = []
    for x, y in arch:
        quarters += _pair(tube([(x, y, -55), (x, y, -46)], 3.2), 1900)
        quarters += _pair(tube([(x - 1, y + 1, -43), (x - 1, y + 1, -33)], 3.2), 1900)
    return quarters


def _mouth() -> list[FilledSolid]:
    tongue = ellipsoid((0, -72, -44), (24, 30, 20))
    return [
        FilledSolid(ellipsoid((0, -72, -42), (26, 29, 21)), -60),
        FilledSolid(tongue, 55),
        FilledSolid(tube([(0, -92, -27), (0, -60, -23)], 1.6, stretch=(9, 1, 1)), -900),
        *_pair(tube([(18, -52, -52), (8, -96, -62)], [7, 5], stretch=(1, 1, 1.4)), -60),
        FilledSolid(tube([(0, -50, -62), (0, -96, -66)], 8, stretch=(1.5, 1, 1)), 58),
    ]


# ── glands, muscles and vessels of the neck ───────────────────────────────────────────────────────────────────────────


def _parotid(mandible: Solid, side_scale: float) -> Solid:
    """Superficial lobe from the ramus back to the mastoid, deep lobe towards the parapharyngeal space."""
    superficial = ellipsoid((60, -25, -39), (11 * side_scale, 25, 28 * side_scale))
    deep = ellipsoid((51, -17, -41), (12, 12, 23))
    behind = _MASTOID | _sternomastoid(0)
    return ((superficial | deep) & loft(_HEAD, grown_mm=-_FAT_MM)) - (mandible | behind)


def _sternomastoid(grown_mm: float) -> Solid:
    path = [(57, 3, -36), (50, -8, -75), (38, -26, -115), (20, -46, -156)]
    return tube(path, [radius + grown_mm for radius in (7.5, 9.5, 8.5, 6.5)], stretch=(0.8, 1.2, 1))


def _submandibular() -> Solid:
    return ellipsoid((32, -49, -80), (10, 13.5, 15))


def _neck() -> list[FilledSolid]:
    fat = tube([(36, -22, -50), (32, -22, -90), (32, -22, -125), (34, -18, -150)], [9, 13, 14, 12])
    masseter = tube([(60, -58, -12), (57, -58, -58)], [4.5, 5.5], stretch=(1, 2.4, 1))
    pterygoid = tube([(30, -46, -12), (43, -46, -52)], [6, 6], stretch=(1, 1.8, 1))
    posterior = [
        tube([(x, 46 - abs(x) * 0.25, -40), (x * 1.4, 52 - abs(x) * 0.3, -105)], 2.0, stretch=(3, 1, 1)) for x in (-26, 0, 26)
    ]
    return [
        *(FilledSolid(plane, -70) for plane in posterior),
        *_pair(fat, -85),
        *_pair(tube([(22, 24, -46), (30, 30, -110)], [11, 14]), 58),
        *_pair(ellipsoid((27, -34, -24), (7, 10, 17)), -90),
        *_pair(_sternomastoid(1.5), -80),
        *_pair(_sternomastoid(0), 60),
        *_pair(masseter, 62),
        *_pair(pterygoid, 58),
        *_pair(tube([(27, -20, -30), (27, -24, -90), (22, -24, -140), (12, -20, -185)], 3.6), 55),
        *_pair(tube([(36, -16, -30), (36, -20, -90), (32, -24, -140), (28, -28, -165)], [5, 6.5, 7, 7]), 50),
        *_pair(ellipsoid((32, -49, -80), (14, 18, 18)), -80),
        *_pair(ellipsoid((17, -40, -128), (8, 9, 19)), 105),
    ]


def _airway() -> list[FilledSolid]:
    """From the nose down to the two main bronchi, with the hyoid and the larynx around it."""
    pharynx = tube([(0, -44, -8), (0, -38, -30), (0, -38, -62), (0, -41, -82)], [8, 7, 7, 6.5], stretch=(1.5, 1, 1))
    trachea = [(0.0, -46.0, -96.0), (0.0, -44.0, -120.0), (0.0, -30.0, -160.0), (0.0, -8.0, -205.0), (0.0, 6.0, -232.0)]
    bronchus = tube([(0, 6, -232), (26, 16, -252), (44, 18, -262)], 6.5)
    thyroid_cartilage = tube([(18, -40, -98), (0, -60, -100)], 1.7, stretch=(1, 1, 7))
    return [
        FilledSolid(pharynx, -990),
        FilledSolid(tube([(0, -42, -86), (0, -48, -94)], [7, 4], stretch=(1.2, 1, 1)), -990),
        *_pair(tube([(21, -44, -82), (15, -60, -84), (0, -66, -84)], [2, 2.5, 3], stretch=(1, 1, 1.3)), 450),
        *_pair(thyroid_cartilage, 170),
        FilledSolid(tube(trachea, [9, 10.5, 10.5, 10.5, 10.5]), 120),
        FilledSolid(tube(trachea, [5, 8.5, 8.5, 8.5, 8.5]), -995),
        *_pair(bronchus, -995),
    ]


# ── the spine ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_CANAL_AXIS = (
    (-34, 2.5),
    (-46, 2),
    (-62, 1),
    (-80, 0),
    (-96, 2),
    (-112, 7),
    (-128, 14),
    (-144, 22),
    (-162, 31),
    (-181, 40),
    (-201, 48),
    (-222, 54),
    (-244, 58),
    (-267, 61),
    (-290, 63),
    (FLOOR_MM, 64),
)
"""z and y of the middle of the spinal canal; from the second entry on, the middles of C1, C2, … T7."""

_VERTEBRAE = _CANAL_AXIS[1:15]
_CORD_TOP_MM = -38.0


def _canal_loft(half_width: float, half_depth: float, top: float) -> Solid:
    z, y = np.array(_CANAL_AXIS).T
    heights = [top, *(h for h in z if h < top)]
    middle = np.interp(heights, z[::-1], y[::-1])
    return loft([Section(h, 0, m, half_width, m - half_depth, m + half_depth) for h, m in zip(heights, middle, strict=True)])


def _spine(canal: Solid, cord: Solid) -> list[FilledSolid]:
    tissues: list[FilledSolid] = []
    for i, (z, y) in enumerate(_VERTEBRAE):
        tissues += _atlas(z, y) if i == 0 else _vertebra(i, z, y)
    dens = tube([(0, -12, -64), (0, -12, -42)], 5.2)
    return [*tissues, FilledSolid(dens, 800), FilledSolid(canal, -10), FilledSolid(_thecal_sac(), 12), FilledSolid(cord, 40)]


def _thecal_sac() -> Solid:
    return _canal_loft(9, 6.6, -36)


def _atlas(z: float, y: float) -> list[FilledSolid]:
    """C1: a ring with broad lateral masses and no body."""
    half_ring = [(0, y - 19, z), (14, y - 15, z), (19, y, z), (13, y + 15, z), (0, y + 19, z)]
    lateral = tube([(18, y - 6, z + 2), (22, y - 5, z - 2)], 8)
    transverse = tube([(24, y - 3, z), (38, y - 1, z)], [5, 4])
    return [*_pair(union([tube(half_ring, 4), lateral, transverse]), 750), *_pair(ellipsoid((20, y - 5, z), (5, 5, 5)), 350)]


def _vertebra(index: int, z: float, y: float) -> list[FilledSolid]:
    """Body, arch, transverse and spinous processes; ``index`` 1 is C2. They grow towards the chest."""
    growth = index / 13
    half_width, depth = 10.5 + 6 * growth, 15 + 11 * growth
    half_height = 6.8 + 3.2 * growth
    front = y - 8 - depth / 2
    body = _disc(front, half_width, depth / 2, z, half_height)
    pedicle_and_lamina = [(11, y - 10, z), (14.5, y, z), (9, y + 11, z - 1), (0, y + 15, z - 2)]
    spine_length = 12 + 22 * growth + (6 if index == 1 else 0)
    spinous = tube([(0, y + 14, z - 2), (0, y + 14 + spine_length, z - 6 - 12 * growth)], [3.2, 3.6], stretch=(1, 1, 1.5))
    transverse = tube([(13, y - 4, z), (22 + 8 * growth, y + 2 + 12 * growth, z)], [4, 3.8])
    arch = tube(pedicle_and_lamina, 3.6, stretch=(1, 1, 1.3))
    return [
        FilledSolid(_disc(front, half_width - 1, depth / 2 - 1, z, half_height + 3), 85),
        FilledSolid(body, 750),
        FilledSolid(_disc(front, half_width - 1.8, depth / 2 - 1.8, z, half_height - 1.8), 260),
        FilledSolid(spinous, 600),
        *_pair(arch | transverse, 700),
    ]


def _disc(y: float, half_width: float, half_depth: float, z: float, half_height: float) -> Solid:
    """An upright elliptic cylinder."""
    outline = partial(Section, x=0, y=y, half_width=half_width, front=y - half_depth, back=y + half_depth)
    return loft([outline(z=z - half_height), outline(z=z + half_height)])


# ── the chest ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_LUNG = (
    Section(-150, 38, 18, 4, 12, 24),
    Section(-154, 40, 18, 15, 0, 34),
    Section(-162, 44, 18, 26, -14, 48),
    Section(-178, 50, 18, 34, -28, 68, 2.0, 2.2),
    Section(-200, 57, 18, 42, -44, 84, 2.0, 2.2),
    Section(-230, 63, 18, 49, -60, 91, 2.0, 2.2),
    Section(-265, 68, 18, 55, -76, 95, 2.0, 2.2),
    Section(FLOOR_MM, 71, 18, 60, -86, 97, 2.0, 2.2),
)


_HEART = ((0, -26, -232), (6, -40, -268), (14, -50, FLOOR_MM))
_AORTA = ((-6, -34, -232), (8, -10, -216), (20, 28, -224), (22, 44, -260), (22, 46, FLOOR_MM))


def _lungs() -> dict[Laterality, Solid]:
    """Both make room for the mediastinum; the left one also for the aortic arch."""
    lung = loft(_LUNG) - (_spine_column() | tube([(0, -30, -160), (0, -8, -205), (0, 6, -232), (30, 16, -256)], 15))
    heart = tube(_HEART, [16, 30, 48])
    return {Laterality.LEFT: lung - (heart | tube(_AORTA, 15)), Laterality.RIGHT: reflected(lung) - heart}


def _spine_column() -> Solid:
    return tube([(0.0, y - 18, float(z)) for z, y in _CANAL_AXIS[8:]], 21, stretch=(1, 1.2, 1))


def _ribs() -> Solid:
    """Hoops around both lungs, 22 mm apart, that fall towards the front."""
    wall = [loft(_LUNG, grown_mm=mm) for mm in (10, 3)]
    shell = wall[0] - wall[1]

    def contains(points: Points) -> Mask:
        x, y, z = points
        rise: FloatArray = z - 0.45 * y + 0.05 * x
        return shell.contains(points) & (np.mod(rise, 22) < 8)

    return Solid(shell.low, np.minimum(shell.high, [np.inf, np.inf, -145]), contains)


def _chest(lungs: Mapping[Laterality, Solid]) -> list[FilledSolid]:
    ribs = _ribs()
    clavicle = [(18, -50, -160), (60, -34, -148), (106, 4, -138), (146, 20, -134)]
    scapula = tube([(150, 40, -140), (120, 74, -180), (104, 86, -240)], [7, 4.5, 4.5], stretch=(1.6, 1, 1))
    humerus = [(166, 30, -162), (178, 30, -196), (186, 32, FLOOR_MM)]
    sternum = [(0, -58, -168), (0, -74, -210), (0, -92, FLOOR_MM)]
    fat = tube([(0, -32, -170), (0, -40, -215), (0, -46, FLOOR_MM)], [14, 26, 34], stretch=(1, 0.7, 1))
    return [
        *_pair(tube([(118, 10, -190), (130, 20, FLOOR_MM)], [10, 22]), -95),
        *_pair(ribs, 700),
        *_pair(ribs & loft(_LUNG, grown_mm=8.5) & (ribs - loft(_LUNG, grown_mm=4.5)), 350),
        *(FilledSolid(lung, -840) for lung in lungs.values()),
        FilledSolid(fat, -80),
        FilledSolid(tube(_AORTA, 12.5), 48),
        FilledSolid(tube([(-16, -34, -190), (-20, -34, -240), (-20, -36, FLOOR_MM)], [7, 10, 11]), 45),
        FilledSolid(tube(_HEART, [14, 28, 46]), 45),
        *_pair(tube(clavicle, [7.5, 5.5, 5.5, 6]), 800),
        *_pair(tube(clavicle, [5, 3, 3, 3.5]), 250),
        *_pair(scapula, 600),
        *_pair(tube(humerus, [24, 12.5, 12]), 800),
        *_pair(tube(humerus, [21, 8.5, 8]), 200),
        FilledSolid(tube(sternum, 7, stretch=(3, 1, 1)), 500),
        FilledSolid(tube(sternum, 4.5, stretch=(3.6, 1, 1)), 150),
    ]


# ── all together ──────────────────────────────────────────────────────────────────────────────────────────────────────


def head_and_neck_anatomy() -> tuple[Sequence[FilledSolid], Mapping[str, Solid]]:
    """What fills the body, and the 21 OARs by TG-263 name.

    The fillings are in the order of painting.
    """
    brainstem = loft(_BRAINSTEM)
    orbit, orbit_tissues = _orbit()
    half_mandible = _half_mandible(0)
    mandible = half_mandible | reflected(half_mandible)
    canal, cord = _canal_loft(11.5, 8.0, _CORD_TOP_MM), _canal_loft(6.6, 4.8, _CORD_TOP_MM)
    lungs = _lungs()
    parotids = {Laterality.LEFT: _parotid(mandible, 1.0), Laterality.RIGHT: reflected(_parotid(mandible, 1.03))}
    beside = _PETROUS | _orbital_cone(2.2) | orbit["OpticNrv"]
    brain = loft(_CAVITY) - (brainstem | beside | reflected(beside))
    tissues = [
        *_outside(),
        *_neck(),
        *_chest(lungs),
        *_spine(canal, cord),
        *_face(),
        *_mouth(),
        *_cranium(brainstem),
        *(mirror for tissue in orbit_tissues for mirror in _pair(tissue.solid, tissue.hu)),
        *_airway(),
        FilledSolid(parotids[Laterality.LEFT], 0),
        FilledSolid(parotids[Laterality.RIGHT], -5),
        *_pair(_submandibular(), 50),
        *_teeth(),
        FilledSolid(mandible, 1000),
        *_pair(_half_mandible(-2.4), 350),
    ]
    organs = {"Brain": brain, "Brainstem": brainstem, "Bone_Mandible": mandible, "SpinalCanal": canal, "SpinalCord": cord}
    for name, solid in {**orbit, "Cochlea": _COCHLEA, "Glnd_Submand": _submandibular()}.items():
        organs |= {f"{name}_L": solid, f"{name}_R": reflected(solid)}
    for name, pair in {"Lung": lungs, "Parotid": parotids}.items():
        organs |= {f"{name}_L": pair[Laterality.LEFT], f"{name}_R": pair[Laterality.RIGHT]}
    return tissues, organs
