"""The 21 OARs of Nikolov et al. 2021 (Table 2).

And what Oarlock knows of each.

Names follow AAPM TG-263. Colours are Oarlock's own: fixed, told apart on grey CT, a pair shares one hue with the left side
lighter. Codes are SNOMED CT, those of PS3.16 wherever the standard lists the organ (CID 9514 "Anatomical Structure for
Radiotherapy", else another context group); only the cochlea is in none. For the submandibular gland that is 54019009, although
maps of TG-263 name 385296007: :mod:`oarlock.organs.roi_names` reads both. A tolerance is the paper's organ-specific one
where a public re-use of the paper's table confirms it; ``tolerance_source`` says how well.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Laterality(StrEnum):
    """Side of the patient's body."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class OAR:
    """An organ at risk.

    ``name`` is the TG-263 primary name (16 characters at most); ``paper_name`` the label of the paper's released contours;
    ``colour`` sRGB, 0 to 255; ``tolerance_mm`` the surface DSC tolerance; ``single`` says that the organ is one connected piece.
    """

    name: str
    paper_name: str
    colour: tuple[int, int, int]
    tolerance_mm: float
    tolerance_source: str
    snomed_code: str
    snomed_meaning: str
    laterality: Laterality | None = None
    single: bool = True

    def __str__(self) -> str:
        return self.name


_TWO = "paper, confirmed by two public re-uses"
_ONE = "paper, confirmed by one public re-use"
_UNVERIFIED = "paper, as quoted once; not confirmed"
_RATERS = "95th percentile between the paper's released raters; not confirmed"

_L, _R = Laterality.LEFT, Laterality.RIGHT

OARS: Final[tuple[OAR, ...]] = (
    OAR("Brain", "Brain", (250, 190, 190), 1.01, _ONE, "12738006", "Brain"),
    OAR("Brainstem", "Brainstem", (230, 25, 75), 2.50, _TWO, "119238007", "Brainstem"),
    OAR("Cochlea_L", "Cochlea-Lt", (255, 225, 25), 1.25, _ONE, "80169004", "Cochlea", _L),
    OAR("Cochlea_R", "Cochlea-Rt", (200, 170, 0), 1.25, _ONE, "80169004", "Cochlea", _R),
    OAR("Glnd_Lacrimal_L", "Lacrimal-Lt", (240, 130, 255), 2.50, _RATERS, "13561001", "Lacrimal gland", _L),
    OAR("Glnd_Lacrimal_R", "Lacrimal-Rt", (190, 70, 205), 2.50, _RATERS, "13561001", "Lacrimal gland", _R),
    OAR("Lens_L", "Lens-Lt", (120, 255, 255), 0.98, _ONE, "78076003", "Lens of eye", _L),
    OAR("Lens_R", "Lens-Rt", (0, 200, 200), 0.98, _ONE, "78076003", "Lens of eye", _R),
    OAR("Lung_L", "Lung-Lt", (150, 200, 255), 2.42, _UNVERIFIED, "39607008", "Lung", _L),
    OAR("Lung_R", "Lung-Rt", (90, 140, 220), 2.42, _UNVERIFIED, "39607008", "Lung", _R),
    OAR("Bone_Mandible", "Mandible", (255, 215, 140), 1.01, _TWO, "91609006", "Mandible"),
    OAR("OpticNrv_L", "Optic-Nerve-Lt", (170, 255, 120), 2.50, _TWO, "18234004", "Optic nerve", _L),
    OAR("OpticNrv_R", "Optic-Nerve-Rt", (100, 190, 50), 2.50, _TWO, "18234004", "Optic nerve", _R),
    OAR("Eye_L", "Orbit-Lt", (110, 130, 255), 1.65, _UNVERIFIED, "81745001", "Eye", _L),
    OAR("Eye_R", "Orbit-Rt", (60, 70, 210), 1.65, _UNVERIFIED, "81745001", "Eye", _R),
    OAR("Parotid_L", "Parotid-Lt", (255, 160, 60), 2.85, _TWO, "45289007", "Parotid gland", _L),
    OAR("Parotid_R", "Parotid-Rt", (220, 110, 10), 2.85, _TWO, "45289007", "Parotid gland", _R),
    OAR("SpinalCanal", "Spinal-Canal", (60, 220, 140), 1.17, _UNVERIFIED, "61853006", "Spinal canal"),
    OAR("SpinalCord", "Spinal-Cord", (0, 160, 80), 2.93, _ONE, "2748008", "Spinal cord"),
    OAR("Glnd_Submand_L", "Submandibular-Lt", (255, 120, 170), 2.02, _ONE, "54019009", "Submandibular gland", _L),
    OAR("Glnd_Submand_R", "Submandibular-Rt", (210, 60, 120), 2.02, _ONE, "54019009", "Submandibular gland", _R),
)
"""In the order of the paper's Table 2: the channel order of the shipped model and the ROI order of the RTSTRUCT."""

BY_NAME: Final[dict[str, OAR]] = {oar.name: oar for oar in OARS}
BY_PAPER_NAME: Final[dict[str, OAR]] = {oar.paper_name: oar for oar in OARS}

ANATOMICAL_STRUCTURE_CODE: Final = ("91723000", "SCT", "Anatomical Structure")
LATERALITY_CODES: Final = {
    Laterality.LEFT: ("7771000", "SCT", "Left"),
    Laterality.RIGHT: ("24028007", "SCT", "Right"),
}


def other_side(oar: OAR) -> OAR:
    """The same organ on the other side of the body.

    An unpaired organ is its own mirror image.
    """
    if oar.laterality is None:
        return oar
    other = {"L": "R", "R": "L"}[oar.name[-1]]
    return BY_NAME[oar.name[:-1] + other]
