"""The head of a review: what ``review.json`` holds, as :mod:`oarlock.pictures.review` writes it."""

from typing import Annotated, Literal

from pydantic import Field

from service.api.schemas.base import Schema, Time

Part = Annotated[tuple[int, int], Field(description="first byte and length of a zlib stream in the data")]
Span = tuple[int, int]
Box = Annotated[tuple[Span, Span, Span], Field(description="(first, behind the last) along z, y, x")]


class ReviewOrgan(Schema):
    """An organ that the model drew, or did not draw."""

    name: str
    colour: str = Field(description="#rrggbb")
    volume_ml: float
    box: Box | None
    areas: list[int] = Field(description="voxels on each slice of the box")
    part: Part | None = Field(description="the mask in the box: bits, the highest of a byte first, z, y, x")


class ReviewDrawn(Schema):
    """An organ of a structure set that the contours were compared with."""

    name: str
    volume_ml: float
    box: Box
    areas: list[int]
    part: Part


class ReviewPoints(Schema):
    """Surface points, as uint16 in little-endian order.

    z, y, x and the distance in 0.1 mm.
    """

    count: int
    part: Part


class ReviewBeyond(Schema):
    """Where each surface lies beyond the tolerance of the other."""

    predicted: ReviewPoints
    reference: ReviewPoints


class ReviewOverlay(Schema):
    """A structure set that the contours were compared with.

    Supplied ones in their order, then returned ones in theirs.
    """

    origin: Literal["supplied", "approved"] = Field("supplied", description="came with the series, or was returned afterwards")
    position: int | None = Field(None, description="of a returned one, among those; that of its comparison in the QA report")
    returned_at: Time | None = None
    superseded: bool = Field(False, description="whether a later return took its place")
    data: str | None = Field(None, description="address of what its parts lie in; null: they lie in the review's data")
    organs: list[ReviewDrawn]
    beyond: dict[str, ReviewBeyond] = Field(description="by organ; those that were compared")


class ReviewWindow(Schema):
    """Which rows and columns the pictures show."""

    y: Span
    x: Span
    step: int = Field(description="of how many rows and columns one is kept")


class ReviewHead(Schema):
    """What lies where in the data of a review.

    z runs from the feet to the head, y to the back, x to the patient's left.
    """

    version: int
    model: str = Field(description="who drew the contours")
    hu: list[int] = Field(description="the Hounsfield unit that each grey value stands for")
    slices: int
    slice_numbers: list[int] = Field(description="of each slice, its number along the slice axis from 1")
    z_mm: list[float]
    drift_mm: list[tuple[float, float]] | None = Field(description="by how much each slice lies further along y and x")
    spacing_mm: tuple[float, float] = Field(description="(y, x)")
    window: ReviewWindow
    organs: list[ReviewOrgan]
    overlays: list[ReviewOverlay]
    images: list[Part] = Field(description="each slice's grey values, in a row each but the first less the one before it")


class Patient(Schema):
    """Who the patient of a job is.

    Empty where the RTSTRUCT does not say.
    """

    name: str
    id: str
    study_date: str
