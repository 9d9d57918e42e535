"""Each limit that ``docs/api.md`` states for a parameter has one case just inside and one just outside."""

from typing import Any

import httpx
import pytest

from oarlock.store.files import QA_REPORT
from tests.service.running import Running, parts

PARAMETERS: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("/v1/jobs", {"limit": 1}, {"limit": 0}),
    ("/v1/jobs", {"limit": 500}, {"limit": 501}),
    ("/v1/retrievals", {"limit": 1}, {"limit": 0}),
    ("/v1/retrievals", {"limit": 500}, {"limit": 501}),
    ("/v1/qa/reviews", {"limit": 1}, {"limit": 0}),
    ("/v1/qa/reviews", {"limit": 5_000}, {"limit": 5_001}),
    ("/v1/qa/scores", {"limit": 1}, {"limit": 0}),
    ("/v1/qa/scores", {"limit": 5_000}, {"limit": 5_001}),
    ("/v1/qa/summary", {"alert_level": 0}, {"alert_level": -0.001}),
    ("/v1/qa/summary", {"alert_level": 1}, {"alert_level": 1.001}),
    # Both days count: from 1 January 2025 to 4 February 2026 are 400.
    ("/v1/qa/summary", {"from": "2025-01-01", "to": "2026-02-04"}, {"from": "2025-01-01", "to": "2026-02-05"}),
    ("/v1/qa/drift", {"points": 1}, {"points": 0}),
    ("/v1/qa/drift", {"points": 1_000}, {"points": 1_001}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "inside", "outside"), PARAMETERS)
def test_a_parameter_is_taken_up_to_its_limit_and_refused_beyond(
    client: httpx.Client, path: str, inside: dict[str, Any], outside: dict[str, Any]
) -> None:
    fixed = {"/v1/qa/drift": {"oar": "Brain"}, "/v1/qa/summary": {"bucket": "day"}}.get(path, {})
    assert client.get(path, params=fixed | inside).status_code == 200
    refused = client.get(path, params=fixed | outside)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid_parameter")


@pytest.mark.parametrize(("length", "code"), [(64, "series.not_dicom"), (65, "request.invalid_parameter")])
def test_a_label_has_64_characters(client: httpx.Client, length: int, code: str) -> None:
    """The upload is not a CT: a label that is taken is followed by that refusal."""
    answer = client.post("/v1/jobs", files=parts([b"not a CT"]), data={"label": "x" * length})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(("length", "code"), [(255, "series.not_dicom"), (256, "request.invalid_parameter")])
def test_an_idempotency_key_has_255_characters(client: httpx.Client, length: int, code: str) -> None:
    answer = client.post("/v1/jobs", files=parts([b"not a CT"]), headers={"Idempotency-Key": "k" * length})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(("length", "status"), [(500, 200), (501, 422)])
def test_a_comment_has_500_characters(running: Running, client: httpx.Client, series: Any, length: int, status: int) -> None:
    job = client.post("/v1/jobs", files=parts(series)).json()
    running.finish(job, {QA_REPORT: b"{}"})
    organ = {"oar": "Brain", "verdict": "usable", "comment": "x" * length}
    assert client.post(job["links"]["reviews"], json={"organs": [organ]}).status_code == status
