"""The service, as its API gives it.

Every answer is a value, or one of two errors: come again, or never.
"""

import ssl
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from gateway.errors import ServiceAway, ServiceRefused, SetupInvalid
from gateway.metrics import SERVICE_CALLS
from gateway.settings import PREFIX, GatewaySettings
from gateway.store import Delivery

PATIENCE_S: Final = 120.0
"""Longest silence of the service: it checks a whole series before it answers a post."""

_AGAIN: Final = frozenset({401, 403, 408, 425, 429})
"""Beside 5xx: may be answered otherwise later. A key can be made anew, and a series is not lost for a wrong one."""

RESULTS: Final[Mapping[str, str]] = {"rtstruct": "rtstruct", "seg": "seg", "report": "report.dcm"}
"""Where a job gives each result."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the gateway asks of a job."""

    id: str
    state: str
    detail: str

    @property
    def ended(self) -> bool:
        return self.state in {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class Task:
    """What this gateway is asked through the service.

    :ivar kind: ``retrieve``, ``complete`` or ``resend``.
    :ivar token: shows the service that this gateway still holds it.
    :ivar wanted: the request's document.
    """

    id: str
    kind: str
    token: int
    wanted: Mapping[str, Any]


class ServiceClient:
    """Calls the service with the gateway's key.

    Safe to use from several threads.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        secret = settings.secret
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        try:
            verify = ssl.create_default_context(cafile=settings.service_ca) if settings.service_ca else True
        except (OSError, ssl.SSLError):
            raise SetupInvalid(f"{PREFIX}SERVICE_CA does not name a PEM file that can be used.") from None
        self._client = httpx.Client(base_url=settings.service, headers=headers, timeout=PATIENCE_S, verify=verify)
        self._known_as: str | None = None

    def close(self) -> None:
        self._client.close()

    def post_series(self, files: Sequence[Path], fields: Mapping[str, str], key: str) -> Job:
        """Post a series; the job that it became.

        The same key with the same files gives the same job.
        """
        with ExitStack() as opened:
            parts = [
                ("files", (f"{i}.dcm", opened.enter_context(path.open("rb")), "application/dicom"))
                for i, path in enumerate(files)
            ]
            answer = self._call("POST", "/v1/jobs", files=parts, data=dict(fields), headers={"Idempotency-Key": key})
        return _job(answer.json())

    def job(self, job_id: str) -> Job:
        """How a job stands."""
        return _job(self._call("GET", f"/v1/jobs/{job_id}").json())

    def cancel(self, job_id: str) -> None:
        """Cancel a job; one that has ended stays as it is."""
        self._unless_gone("POST", f"/v1/jobs/{job_id}/cancel")

    def purge(self, job_id: str) -> None:
        """Delete a job with everything of it."""
        self._unless_gone("DELETE", f"/v1/jobs/{job_id}")

    def result(self, job_id: str, name: str) -> bytes | None:
        """A result; None where this service does not offer it."""
        try:
            return self._call("GET", f"/v1/jobs/{job_id}/{RESULTS[name]}").content
        except ServiceRefused as refusal:
            if refusal.status == 404 and refusal.code != "job.not_found":
                return None
            raise

    def return_contours(self, job_id: str, content: bytes) -> None:
        """Give approved contours to the job that drew the first ones."""
        self._call("POST", f"/v1/jobs/{job_id}/reference", content=content, headers={"Content-Type": "application/dicom"})

    def models(self) -> list[str]:
        """Names of the service's models: any valid key may ask."""
        return [str(model["name"]) for model in self._call("GET", "/v1/models").json()["models"]]

    def tell_delivery(self, job_id: str, delivery: Delivery) -> None:
        """Tell how a delivery stands."""
        told = {"place": delivery.place, "result": delivery.result, "state": delivery.state, "attempts": delivery.attempts}
        told |= {"note": delivery.note or None, "at": None if delivery.ended_at is None else to_time(delivery.ended_at)}
        told |= {"gateway": self._known_as} if self._known_as else {}
        self._call("POST", f"/v1/jobs/{job_id}/deliveries", json=told)

    def report(self, name: str, archives: Sequence[str], series: Sequence[Mapping[str, Any]]) -> list[Task]:
        """Say what this gateway has; what it is asked."""
        answer = self._call("POST", f"/v1/gateways/{quote(name)}", json={"archives": list(archives), "series": list(series)})
        self._known_as = name
        tasks = [(task["token"], task["request"]) for task in answer.json()["tasks"]]
        return [Task(wanted["id"], wanted["kind"], token, wanted) for token, wanted in tasks]

    def tell_task(self, name: str, task: Task, **outcome: Any) -> None:
        """Tell how a task stands.

        Its ``state``, and what else the service knows of outcomes.
        """
        self._call("POST", f"/v1/gateways/{quote(name)}/requests/{task.id}", json={"token": task.token, **outcome})

    def retry(self, job_id: str) -> None:
        """Queue a failed job again."""
        self._call("POST", f"/v1/jobs/{job_id}/retry")

    def _unless_gone(self, method: str, path: str) -> None:
        try:
            self._call(method, path)
        except ServiceRefused as refusal:
            if refusal.status not in {404, 409, 410}:
                raise

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            SERVICE_CALLS.labels("away").inc()
            raise ServiceAway(f"the service does not answer ({type(error).__name__})") from None
        if answer.is_success:
            SERVICE_CALLS.labels("answered").inc()
            return answer
        code, detail = _problem(answer)
        if answer.status_code in _AGAIN or answer.is_server_error:
            SERVICE_CALLS.labels("come again").inc()
            reason, broken = f"the service answers {answer.status_code} {code}".strip(), answer.status_code == 500
            raise ServiceAway(reason, _retry_after(answer), broken=broken)
        SERVICE_CALLS.labels("refused").inc()
        raise ServiceRefused(answer.status_code, code, detail or f"the service answers {answer.status_code}")


def _job(document: Mapping[str, Any]) -> Job:
    error = document.get("error") or {}
    return Job(document["id"], document["state"], str(error.get("detail", "")))


def _problem(answer: httpx.Response) -> tuple[str, str]:
    """Code and sentence of a problem document (RFC 9457); empty where the answer is none."""
    try:
        document = answer.json()
    except ValueError:
        return "", ""
    return (str(document.get("code", "")), str(document.get("detail", ""))) if isinstance(document, dict) else ("", "")


def to_time(seconds: float) -> str:
    """Seconds since 1970 as the API writes a time (RFC 3339)."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None
