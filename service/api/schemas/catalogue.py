"""Models and site profiles, as documents."""

from typing import Any, Literal, Self

from pydantic import Field

from oarlock.rtstruct.profiles import Profile
from oarlock.segmentation.manifest import ModelManifest
from service.api.schemas.base import Schema


class ModelPartDocument(Schema):
    """One network of a model."""

    name: str
    sha256: str
    looks_at: Literal["scan", "body", "box"] = Field(
        description="the whole scan, the body, or a box around what another part found"
    )
    spacing_mm: tuple[float, float, float] | None = Field(
        description="(z, y, x) of the grid that it is fed; null: the series' own"
    )
    oars: list[str] = Field(description="TG-263 names of the organs that it draws")


class ModelDocument(Schema):
    """A model that a job can be given to."""

    name: str
    version: str
    sha256: str
    licence: str
    description: str
    default: bool = Field(description="whether it is used when a post names none")
    shadow: bool = Field(description="whether it draws every job of the caller's site too, for the scores alone")
    oars: list[str] = Field(description="TG-263 names, in the order of the RTSTRUCT")
    spacing_mm: tuple[float, float, float] | None = Field(description="(z, y, x) of the first part's grid; null: the series' own")
    parts: list[ModelPartDocument] = Field(description="its networks; most models have one")
    training: dict[str, Any] = Field(description="where and on what it was trained")
    results: dict[str, Any] = Field(description="what was measured on it")
    limits: list[str] = Field(description="what it is not for")

    @classmethod
    def of(cls, manifest: ModelManifest, *, default: bool, shadow: bool = False) -> Self:
        return cls(
            name=manifest.name,
            version=manifest.version,
            sha256=manifest.sha256,
            licence=manifest.licence,
            description=manifest.description,
            default=default,
            shadow=shadow,
            oars=[oar.name for oar in manifest.oars],
            spacing_mm=manifest.parts[0].input.spacing_mm,
            parts=[
                ModelPartDocument(
                    name=part.name,
                    sha256=part.fingerprint,
                    looks_at=part.look.at,
                    spacing_mm=part.input.spacing_mm,
                    oars=[oar.name for oar in manifest.oars if manifest.owners[oar] == part.name],
                )
                for part in manifest.parts
            ],
            training=dict(manifest.training),
            results=dict(manifest.results),
            limits=list(manifest.limits),
        )


class ModelList(Schema):
    """The models of this server."""

    models: list[ModelDocument]


class ProfileROI(Schema):
    """How an OAR is written."""

    oar: str = Field(description="TG-263 name")
    name: str = Field(description="ROI Name in the RTSTRUCT")
    colour: tuple[int, int, int] = Field(description="sRGB, 0 to 255")


class ProfileDocument(Schema):
    """A site profile that a job can be given to."""

    name: str
    description: str
    default: bool = Field(description="whether it is used when neither a post nor its key names one")
    label: str = Field(description="template of Structure Set Label")
    series_description: str
    empty_rois: Literal["keep", "leave_out"]
    max_name_length: int
    max_points: int | None = Field(description="most points of one contour; null: no maximum")
    max_deviation_mm: float = Field(description="how far a contour may leave the exact one to come down to max_points")
    ordered: bool = Field(description="whether rois also gives their order and choice; otherwise that of the model counts")
    rois: list[ProfileROI]

    @classmethod
    def of(cls, profile: Profile, *, default: bool) -> Self:
        return cls(
            name=profile.name,
            description=profile.description,
            default=default,
            label=profile.label,
            series_description=profile.series_description,
            empty_rois="keep" if profile.keep_empty else "leave_out",
            max_name_length=profile.max_name_length,
            max_points=profile.max_points,
            max_deviation_mm=profile.max_deviation_mm,
            ordered=profile.ordered,
            rois=[ProfileROI(oar=style.oar.name, name=style.name, colour=style.colour) for style in profile.styles],
        )


class ProfileList(Schema):
    """The site profiles of this server."""

    profiles: list[ProfileDocument]
