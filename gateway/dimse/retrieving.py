"""Series out of an archive: C-FIND says what it has, C-MOVE or C-GET brings it here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.events import Event
from pynetdicom.presentation import build_context

from gateway.configuration import Peer
from gateway.dimse import contexts
from gateway.dimse.peers import asked, associated
from gateway.errors import PeerFailed
from gateway.inbox import DiskLow, Inbox
from gateway.rules import Sent
from gateway.store import Store
from oarlock.dicom.unusable import Unusable

_PENDING: Final = frozenset({0xFF00, 0xFF01})
_DESTINATION_UNKNOWN: Final = 0xA801


@dataclass(frozen=True, slots=True)
class Found:
    """A series that an archive has.

    :ivar images: how many it says that there are; None where it does not say.
    """

    study_uid: str
    series_uid: str
    modality: str
    images: int | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched.

    :ivar study_uid: empty where it is not known; some archives find no series without it (PS3.4 C.4.1.3).
    :ivar structure_sets: whether the RTSTRUCTs of its study come first.
    """

    series_uid: str
    study_uid: str = ""
    structure_sets: bool = False


def fetch(archive: Peer, title: str, wanted: Wanted, store: Store, inbox: Inbox) -> int:
    """Bring a series here, announced with the number of images that the archive says it has; how many files came.

    :raises PeerFailed: the archive does not have it, or some of it did not come.
    """
    found = find(archive, title, study_uid=wanted.study_uid, series_uid=wanted.series_uid)
    if not found:
        raise PeerFailed("it has no such series", final=True)
    series, count = found[0], 0
    if series.images is not None:
        store.announce(series.series_uid, series.images, inbox.now())
    if wanted.structure_sets:
        for one in find(archive, title, study_uid=series.study_uid, modality="RTSTRUCT"):
            count += retrieve(archive, title, one, store, inbox)
    came = retrieve(archive, title, series, store, inbox)
    store.announce(series.series_uid, max(came, series.images or 0), inbox.now())
    return count + came


def find(archive: Peer, title: str, *, study_uid: str = "", series_uid: str = "", modality: str = "") -> list[Found]:
    """Series of an archive (C-FIND at the series level).

    :raises PeerFailed: the archive is away, or cannot be asked.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID, query.SeriesInstanceUID, query.Modality = study_uid, series_uid, modality
    query.NumberOfSeriesRelatedInstances = ""
    with associated(archive, title, asked([contexts.FIND])) as association:
        if not association.accepted_contexts:
            raise PeerFailed("it does not take queries (C-FIND, study root)")
        answers = list(_answers(association.send_c_find(query, contexts.FIND)))
    return [_found(answer) for answer in answers]


def _answers(responses: Iterator[tuple[Dataset, Dataset | None]]) -> Iterator[Dataset]:
    for status, answer in responses:
        if "Status" not in status:
            raise PeerFailed("the connection was lost during the query")
        if status.Status in _PENDING and answer is not None:
            yield answer
        elif status.Status not in (0, *_PENDING):
            raise PeerFailed(f"it answers C-FIND with status {int(status.Status):04X}")


def _found(answer: Dataset) -> Found:
    count = str(answer.get("NumberOfSeriesRelatedInstances", "") or "")
    uids = (str(answer.get("StudyInstanceUID", "")), str(answer.get("SeriesInstanceUID", "")))
    return Found(*uids, str(answer.get("Modality", "")), int(count) if count.isdigit() else None)


def retrieve(archive: Peer, title: str, series: Found, store: Store, inbox: Inbox) -> int:
    """Bring a series here, the way that the archive's ``retrieve`` names; how many images came.

    :raises PeerFailed: some of it did not come.
    """
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "SERIES"
    wanted.StudyInstanceUID, wanted.SeriesInstanceUID = series.study_uid, series.series_uid
    bring = _get if archive.retrieve == "get" else _move
    return bring(archive, title, wanted, store, inbox)


def _move(archive: Peer, title: str, wanted: Dataset, _store: Store, _inbox: Inbox) -> int:
    """The archive opens an association to our title, at the address that it knows for it: the gateway that runs receives."""
    with associated(archive, title, asked([contexts.MOVE])) as association:
        if not association.accepted_contexts:
            raise PeerFailed("it does not take C-MOVE (study root)")
        return _count(association.send_c_move(wanted, title, contexts.MOVE), title)


def _get(archive: Peer, title: str, wanted: Dataset, store: Store, inbox: Inbox) -> int:
    """The images come over the association that asks for them."""
    storage = [build_context(uid, list(contexts.syntaxes_of(uid))) for uid in contexts.RECEIVED]
    roles = [build_role(uid, scp_role=True) for uid in contexts.RECEIVED]
    sent = Sent(archive.title, title)
    number = store.begin(sent, inbox.now())

    def stored(event: Event) -> int:
        try:
            inbox.take(event.encoded_dataset(), sent, association=number)
        except Unusable:
            return 0xC000
        except (DiskLow, OSError):
            return 0xA700
        return 0

    complete = False
    try:
        options = {"ext_neg": roles, "evt_handlers": [(evt.EVT_C_STORE, stored)]}
        with associated(archive, title, [*asked([contexts.GET]), *storage], **options) as association:
            if not any(context.abstract_syntax == contexts.GET for context in association.accepted_contexts):
                raise PeerFailed("it does not take C-GET (study root)")
            count = _count(association.send_c_get(wanted, contexts.GET), title)
        complete = True
    finally:
        store.end(number, inbox.now(), released=complete)
    return count


def _count(responses: Iterator[tuple[Dataset, Dataset | None]], title: str) -> int:
    """How many images came, by the last response.

    :raises PeerFailed: not all of them did.
    """
    last = Dataset()
    for status, _ in responses:
        last = status
    if "Status" not in last:
        raise PeerFailed("the connection was lost during the transfer")
    if last.Status == _DESTINATION_UNKNOWN:
        raise PeerFailed(f"it does not know where {title} is: enter our AE title, address and port there")
    failed = int(last.get("NumberOfFailedSuboperations", 0) or 0)
    if last.Status != 0 or failed:
        raise PeerFailed(f"it ends the transfer with status {int(last.Status):04X}, and {failed} images did not come")
    return int(last.get("NumberOfCompletedSuboperations", 0) or 0)
