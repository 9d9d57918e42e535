"""Routes of the pages (ADR 28).

A page holds no data: its script asks the API, as any other caller does.
"""

from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import FileResponse, HTMLResponse, Response

from oarlock import __version__
from service.api.routing import reads
from service.errors import RouteNotFound

HERE: Final = Path(__file__).parent

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # without a referrer a form would send an Origin of null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every page: it runs our scripts alone, loads from here alone, and stands in no frame."""

_STATIC: Final = {path.name: path for path in (HERE / "static").iterdir()}
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_TEMPLATES: Final = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)

pages = APIRouter(include_in_schema=False)


def show(name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from its template."""
    content = _TEMPLATES.get_template(name).render(version=__version__, **values)
    return HTMLResponse(content, status_code=status, headers=HEADERS)


@reads(pages, "/")
async def get_dashboard() -> Response:
    """The jobs."""
    return show("dashboard.html", here="/")


@reads(pages, "/charts")
async def get_charts() -> Response:
    """Scores over time."""
    return show("charts.html", here="/charts")


@reads(pages, "/commissionings")
async def get_commissionings() -> Response:
    """What past patients said of a model."""
    return show("commissionings.html", here="/commissionings")


@reads(pages, "/models")
async def get_models() -> Response:
    """The models."""
    return show("models.html", here="/models")


@reads(pages, "/jobs/{job_id}")
async def get_review_page(job_id: str) -> Response:
    """A job, to be looked through."""
    return show("review.html", job_id=job_id)


@reads(pages, "/static/{name}")
async def get_static(request: Request, name: str) -> Response:
    """A script or style sheet of the pages.

    :raises RouteNotFound: if there is none of this name.
    """
    del request
    if name not in _STATIC:
        raise RouteNotFound
    path = _STATIC[name]
    return FileResponse(path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache", **HEADERS})
