"""Where results go: a DICOM peer, a DICOMweb server, a folder."""

import base64
import os
import ssl
from pathlib import Path
from typing import Final

import httpx

from gateway.configuration import Peer, Place, Watch, Web
from gateway.dimse import peers
from gateway.errors import PeerFailed
from gateway.results import Finished

DONE: Final = "done"
"""Folder, in a watched one, of series that were taken in, each in a folder that is named by its UID."""

_BOUNDARY: Final = "oarlock-gateway-part"
_PATIENCE_S: Final = 60.0
_ALWAYS_AGAIN: Final = frozenset({401, 403, 404, 408, 409, 425, 429})
"""Beside 5xx: answers that an operator of the other side can change."""


def deliver(place: Place, finished: Finished, title: str, series_uid: str) -> None:
    """Bring a result to its place.

    :param title: our AE title.
    :param series_uid: of the CT: a watched folder gets its results beside the files that were dropped.
    :raises PeerFailed: it is not there.
    """
    if isinstance(place, Peer):
        peers.store(place, title, finished.dicom)
    elif isinstance(place, Web):
        stow(place, finished.dicom)
    elif isinstance(place, Watch):
        write_into(place.path / DONE / series_uid, finished)
    else:
        write_into(place.path, finished)


def stow(web: Web, content: bytes) -> None:
    """Send one DICOM file by STOW-RS (PS3.18 10.5).

    :raises PeerFailed: the server is away, or did not store it.
    """
    kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json", **_credentials(web)}
    head = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = head + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    try:
        verify = ssl.create_default_context(cafile=web.ca) if web.ca else True
        answer = httpx.post(web.url, content=body, headers=headers, timeout=_PATIENCE_S, verify=verify)
    except (httpx.HTTPError, OSError) as error:
        raise PeerFailed(f"it does not answer ({type(error).__name__})") from None
    if not answer.is_success:
        final = answer.status_code not in _ALWAYS_AGAIN and not answer.is_server_error
        raise PeerFailed(f"it answers {answer.status_code}", final=final)
    if _failed(answer):
        raise PeerFailed("it answers that the instance was not stored")


def look_at(web: Web) -> None:
    """Ask a DICOMweb server for one study (QIDO-RS).

    :raises PeerFailed: it is away, or does not answer with what it has.
    """
    headers = {"Accept": "application/dicom+json", **_credentials(web)}
    try:
        verify = ssl.create_default_context(cafile=web.ca) if web.ca else True
        answer = httpx.get(web.url, params={"limit": 1}, headers=headers, timeout=_PATIENCE_S, verify=verify)
    except (httpx.HTTPError, OSError) as error:
        raise PeerFailed(f"it does not answer ({type(error).__name__})") from None
    if not answer.is_success:
        raise PeerFailed(f"it answers {answer.status_code}")


def _credentials(web: Web) -> dict[str, str]:
    try:
        if web.bearer_file is not None:
            return {"Authorization": f"Bearer {web.bearer_file.read_text(encoding='utf-8').strip()}"}
        if web.user is not None:
            password = web.password_file.read_text(encoding="utf-8").strip() if web.password_file else ""
            return {"Authorization": "Basic " + base64.b64encode(f"{web.user}:{password}".encode()).decode()}
    except OSError:
        raise PeerFailed("the file with its password cannot be read") from None
    return {}


def _failed(answer: httpx.Response) -> bool:
    """Whether the answer has an item in Failed SOP Sequence; some servers answer 200 all the same."""
    try:
        document = answer.json()
    except ValueError:
        return False
    return isinstance(document, dict) and bool(document.get("00081198", {}).get("Value"))


def write_into(folder: Path, finished: Finished) -> None:
    """Write a result into a folder.

    It appears whole, under its name, by a rename within the folder.

    :raises PeerFailed: the folder is away or full.
    """
    part = folder / f"{finished.file_name}.part"
    try:
        with part.open("wb") as file:
            file.write(finished.plain)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / finished.file_name)
    except OSError as error:
        raise PeerFailed(f"it cannot be written to ({type(error).__name__})") from None
