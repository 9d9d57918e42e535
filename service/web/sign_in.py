"""Routes of getting in and out.

By a key, or an identity provider (authorization code flow with PKCE).
"""

import secrets
import warnings
from typing import Annotated, Final
from urllib.parse import parse_qs, urlencode

from authlib.integrations.base_client.errors import OAuthError
from fastapi import APIRouter, Query, Request
from httpx import HTTPError
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from oarlock.errors import OarlockError
from service.access.auth import Principal
from service.access.hosts import Origin
from service.access.oidc import check_url
from service.access.sessions import cookie_name, drop_cookie, set_cookie
from service.api.dependencies import Here, actor_of
from service.api.problems import STATUS_BY_CODE
from service.api.routing import reads
from service.container import Service
from service.errors import CrossSite, IssuerUnavailable, UploadMalformed
from service.facts import facts_of
from service.web.pages import show

with warnings.catch_warnings(record=True):  # it would rather have another HTTP client, which is nothing that an operator can mend
    from authlib.integrations.httpx_client import AsyncOAuth2Client

LARGEST_FORM_BYTES: Final = 8_192
ON_THE_WAY: Final = "oarlock-on-the-way"
"""Cookie of a browser that is away at the identity provider: state, verifier, and where it wants to go."""

_WAY_S: Final = 600
_TIMEOUT_S: Final = 10.0
_SIGN_IN: Final = "/sign-in"

sign_in = APIRouter(include_in_schema=False)


@reads(sign_in, _SIGN_IN)
def get_sign_in(service: Here, next_: Annotated[str, Query(alias="next")] = "/") -> Response:
    """The form; a service that needs no key sends on."""
    if service.doorkeeper.is_open():
        return RedirectResponse(own_path(next_), status_code=303)
    return _form(service, next_)


@sign_in.post(_SIGN_IN)
async def post_sign_in(request: Request, service: Here) -> Response:
    """Begin a session with a key."""
    Origin.of(request).check_own_page(safe=False)
    form = await _read_form(request)
    return await run_in_threadpool(_begin, request, service, form.get("key", "").strip(), own_path(form.get("next", "/")))


@sign_in.post("/sign-out")
def post_sign_out(request: Request, service: Here) -> Response:
    """End the session."""
    Origin.of(request).check_own_page(safe=False)
    answer = RedirectResponse(_SIGN_IN, status_code=303)
    cookie = request.cookies.get(cookie_name(request))
    token = service.sessions.find(cookie) if cookie else None
    if cookie and token:
        try:
            caller = _identify(request, service, token)
        except OarlockError:  # its key was revoked: whose it was is not known any more
            caller = Principal("unknown", "unknown", frozenset())
        service.sessions.close(cookie, actor_of(request, caller))
    drop_cookie(request, answer)
    return answer


def own_path(wanted: str) -> str:
    """An address on this server; the jobs where another was wanted."""
    plain = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted and wanted.isprintable()
    return wanted if plain else "/"


def _form(service: Service, wanted: str, *, status: int = 200, problem: str = "") -> Response:
    oidc = service.settings.oidc_client_id is not None
    way = f"{_SIGN_IN}/oidc?{urlencode({'next': own_path(wanted)})}"
    return show("sign_in.html", status=status, here="", next=own_path(wanted), problem=problem, oidc=oidc, way=way)


def _begin(request: Request, service: Service, token: str, wanted: str) -> Response:
    """A session for whoever a key or token names; the form again where it names nobody."""
    try:
        caller = _identify(request, service, token or None)
    except OarlockError as error:
        facts_of(request).error_code = error.code
        return _form(service, wanted, status=STATUS_BY_CODE[error.code], problem=error.detail)
    facts_of(request).caller = caller
    answer = RedirectResponse(wanted, status_code=303)
    set_cookie(request, answer, service.sessions.open(token, actor_of(request, caller)))
    return answer


def _identify(request: Request, service: Service, token: str | None) -> Principal:
    return service.doorkeeper.identify(token, Origin.of(request), request.client.host if request.client else None)


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a small form.

    :raises UploadMalformed: if it is larger than a form of ours, or not text.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_FORM_BYTES:
            raise UploadMalformed(reason="it is larger than the form")
    try:
        return {name: values[0] for name, values in parse_qs(body.decode("ascii"), max_num_fields=8).items()}
    except ValueError as error:
        raise UploadMalformed(reason="it is not a form") from error


# ── identity provider ─────────────────────────────────────────────────────────────────────────────────────────────────


@reads(sign_in, f"{_SIGN_IN}/oidc")
async def get_oidc(request: Request, service: Here, next_: Annotated[str, Query(alias="next")] = "/") -> Response:
    """The way to the identity provider."""
    verifier = secrets.token_urlsafe(48)
    async with _client(request, service) as client:
        url, state = client.create_authorization_url(_endpoint(service, "authorization_endpoint"), code_verifier=verifier)
    answer = RedirectResponse(url, status_code=303)
    way = f"{state}.{verifier}.{own_path(next_)}"
    secure = request.url.scheme == "https"
    answer.set_cookie(ON_THE_WAY, way, max_age=_WAY_S, path=_SIGN_IN, secure=secure, httponly=True, samesite="lax")
    return answer


@reads(sign_in, f"{_SIGN_IN}/callback")
async def get_callback(request: Request, service: Here, code: str = "", state: str = "", error: str = "") -> Response:
    """The way back from the identity provider.

    The code is changed for a token, and the token begins a session.

    :raises CrossSite: if this browser was not sent away from here.
    """
    begun, verifier, wanted = [*request.cookies.get(ON_THE_WAY, "").split(".", 2), "", "", ""][:3]
    if not state or not secrets.compare_digest(begun.encode(), state.encode()):
        raise CrossSite
    if error or not code:
        return _form(service, wanted, status=403, problem="The identity provider did not let you in.")
    try:
        async with _client(request, service) as client:
            token = await client.fetch_token(
                _endpoint(service, "token_endpoint"), code=code, code_verifier=verifier, grant_type="authorization_code"
            )
    except (OAuthError, HTTPError) as failure:
        raise IssuerUnavailable from failure
    answer = await run_in_threadpool(_begin, request, service, token.get("access_token", ""), wanted)
    if (
        answer.status_code == 303
    ):  # a browser keeps a strict cookie back while it is being sent on from elsewhere: the page goes on
        sent_on = show("sent_on.html", next=own_path(wanted))
        sent_on.raw_headers.extend(pair for pair in answer.raw_headers if pair[0] == b"set-cookie")
        answer = sent_on
    answer.delete_cookie(ON_THE_WAY, path=_SIGN_IN)
    return answer


def _client(request: Request, service: Service) -> AsyncOAuth2Client:
    settings = service.settings
    return AsyncOAuth2Client(
        settings.oidc_client_id,
        settings.oidc_client_secret,
        redirect_uri=str(request.url.replace(path=f"{_SIGN_IN}/callback", query="")),
        scope="openid profile",
        code_challenge_method="S256",
        token_endpoint_auth_method="client_secret_basic" if settings.oidc_client_secret else "none",
        timeout=_TIMEOUT_S,
        follow_redirects=False,
    )


def _endpoint(service: Service, name: str) -> str:
    """An address from the issuer's discovery document.

    :raises IssuerUnavailable: if it is not known, or browsers are not to be signed in by this issuer.
    """
    url = service.oidc.keys.about.get(name) if service.oidc and service.settings.oidc_client_id else None
    if not isinstance(url, str):
        raise IssuerUnavailable
    return check_url(url)
