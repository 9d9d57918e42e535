"""Which organs are carried over together, by which landmarks.

And around which of them they are put right.

Each organ wants its own neighbourhood: one affine map does not fit a whole head, and a map of less than an orbit drifts at 4 mm.
"""

from dataclasses import dataclass
from typing import Final

from model_export.transferred.scans import NATIVE_PER_VOXEL, Point


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """`landmarks` start the registration.

    `margin_mm` (below, above; x, y, z) around them is compared.

    `anchors` names, for each organ that is carried over, the landmark whose middle is laid on the target's.
    """

    name: str
    landmarks: tuple[str, ...]
    margin_mm: tuple[Point, Point]
    anchors: dict[str, str]
    reach_mm: tuple[Point, Point]
    """How far from a left anchor its organs may lie, lowest and highest x, y, z; mirrored for a right one."""
    least_known: float = 0.85
    """An atlas's organ of which less lies in the known CT is not carried over."""
    joins_anchors: bool = True
    """Whether the map is moved so that an anchor falls on the target's; else anchors only say where the organs may lie."""
    with_mirrored: bool = True
    """Whether atlases' mirror images are laid on a scan too."""
    compared: float = 1.0
    """The share of the voxels that the correlation is worked out from."""
    finer: int = NATIVE_PER_VOXEL
    """Voxels of a vote to a voxel of the scan, along y and along x."""

    @property
    def organs(self) -> tuple[str, ...]:
        """What is carried over."""
        return tuple(self.anchors)

    def reach_of(self, organ: str) -> tuple[Point, Point]:
        """Lowest and highest offset (x, y, z) of an organ.

        In mm from its anchor.
        """
        low, high = self.reach_mm
        return ((-high[0], low[1], low[2]), (-low[0], high[1], high[2])) if organ.endswith("_R") else (low, high)


ORBITS: Final = Neighbourhood(
    name="orbits",
    landmarks=("Eye_L", "Eye_R", "Brainstem"),
    margin_mm=((45.0, 40.0, 40.0), (45.0, 30.0, 40.0)),
    anchors={f"{organ}_{side}": f"Eye_{side}" for organ in ("Eye", "Lens", "OpticNrv", "Glnd_Lacrimal") for side in "LR"},
    reach_mm=((-44.0, -30.0, -26.0), (36.0, 64.0, 26.0)),
)
SKULL_BASE: Final = Neighbourhood(
    name="skull-base",
    landmarks=("Brainstem",),
    margin_mm=((85.0, 80.0, 45.0), (85.0, 80.0, 70.0)),
    anchors={"Brain": "Brainstem"},
    reach_mm=((-85.0, -120.0, -70.0), (85.0, 110.0, 130.0)),
    least_known=0.0,  # a contour is whole, also where the public CT is cut; the bones below are what is compared
    joins_anchors=False,  # a brainstem's middle depends on where its ends were drawn
    compared=0.2,
    finer=1,
)
BRAINSTEM: Final = Neighbourhood(
    name="brainstem",
    landmarks=("Brainstem",),
    margin_mm=((60.0, 60.0, 35.0), (60.0, 60.0, 35.0)),
    anchors={"Brainstem": "Brainstem"},
    reach_mm=((-30.0, -35.0, -45.0), (30.0, 35.0, 45.0)),
    joins_anchors=False,
    with_mirrored=False,  # nine atlases without them, for half of the work
)
NEIGHBOURHOODS: Final = {near.name: near for near in (ORBITS, SKULL_BASE, BRAINSTEM)}
