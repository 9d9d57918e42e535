"""Routes of the catalogue: models and site profiles."""

from typing import Any, Final

from fastapi import APIRouter

from service.api.dependencies import Caller, Here, needs
from service.api.openapi import Call, json_answer, problems
from service.api.routing import reads
from service.api.schemas.catalogue import ModelDocument, ModelList, ProfileDocument, ProfileList

models = APIRouter(prefix="/v1/models", tags=["models"])
profiles = APIRouter(prefix="/v1/profiles", tags=["profiles"])

_MODEL: Final[dict[str, Any]] = {
    "name": "oarlock-hn",
    "version": "1.0.0",
    "sha256": "9f" * 32,
    "licence": "Apache-2.0",
    "description": "21 organs at risk of the head and neck on planning CT",
    "default": True,
    "shadow": False,
    "oars": ["Brain", "Brainstem"],
    "spacing_mm": [2.5, 2.0, 2.0],
    "parts": [
        {
            "name": "model",
            "sha256": "9f" * 32,
            "looks_at": "scan",
            "spacing_mm": [2.5, 2.0, 2.0],
            "oars": ["Brain", "Brainstem"],
        }
    ],
    "training": {"data": "where the training series came from"},
    "results": {},
    "limits": ["children"],
}
_MODELS: Final[Call] = {"responses": {200: json_answer("The models", {"models": [_MODEL]}, "ModelList"), **problems()}}


@reads(models, "", summary="List models", response_model=ModelList, dependencies=[needs()], **_MODELS)
def list_models(service: Here, caller: Caller) -> ModelList:
    """The models that a job can be given to.

    Their organs, training, results, and what they are not for.
    """
    models, settings = service.models, service.settings
    shadows = {settings.shadow_of(caller.site)} if caller.site else set(settings.shadow.values())
    return ModelList(
        models=[
            ModelDocument.of(found, default=found.name == models.default, shadow=found.name in shadows)
            for found in models.offered.values()
        ]
    )


_PROFILE: Final[dict[str, Any]] = {
    "name": "eclipse",
    "description": "Varian Eclipse",
    "default": False,
    "label": "OARLOCK {date}",
    "series_description": "Oarlock contours (UNAPPROVED)",
    "empty_rois": "keep",
    "max_name_length": 16,
    "max_points": None,
    "max_deviation_mm": 0.3,
    "ordered": False,
    "rois": [{"oar": "Parotid_L", "name": "Parotid_L", "colour": [255, 160, 60]}],
}
_PROFILES: Final[Call] = {"responses": {200: json_answer("The profiles", {"profiles": [_PROFILE]}, "ProfileList"), **problems()}}


@reads(profiles, "", summary="List site profiles", response_model=ProfileList, dependencies=[needs()], **_PROFILES)
def list_profiles(service: Here) -> ProfileList:
    """How an RTSTRUCT can be written.

    Names, order, colours, labels, and what planning systems are known to accept.
    """
    default = service.settings.profile
    return ProfileList(profiles=[ProfileDocument.of(found, default=found.name == default) for found in service.profiles.values()])
