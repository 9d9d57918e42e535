"""Pages of other origins: none may read an answer but those that the settings name, and none with a cookie."""

from unittest.mock import Mock

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from oarlock.settings import Settings
from service.app import create_app

pytestmark = pytest.mark.slow

OURS, OTHER = "https://dashboard.example", "https://dashboard.example.evil"


def client(**settings: object) -> TestClient:
    app = create_app(Settings(**settings))  # type: ignore[arg-type]
    app.state.service = Mock()  # of what it does, these calls need the counting alone
    return TestClient(app, base_url="http://localhost")


def ask(of: TestClient, origin: str) -> dict[str, str]:
    """The headers about other origins that a preflight and the call behind it are answered with."""
    before = of.options("/livez", headers={"Origin": origin, "Access-Control-Request-Method": "GET"})
    after = of.get("/livez", headers={"Origin": origin})
    return {name: value for answer in (before, after) for name, value in answer.headers.items() if name.startswith("access-")}


def test_by_default_no_page_of_another_origin_may_read_an_answer() -> None:
    assert ask(client(), OURS) == {}


def test_a_named_origin_may_with_a_key_and_never_with_a_cookie() -> None:
    named = client(cors_origins=OURS)
    told = ask(named, OURS)
    assert told["access-control-allow-origin"] == OURS
    assert "access-control-allow-credentials" not in told
    assert "access-control-allow-origin" not in ask(named, OTHER)
    wanted = {"Origin": OURS, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert named.options("/v1/jobs", headers=wanted).status_code == 200


@pytest.mark.parametrize("origin", ["*", "null", "https://*.example", "https://dashboard.example/", "dashboard.example"])
def test_what_is_not_an_exact_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValidationError, match="exact origins"):
        client(cors_origins=origin)
