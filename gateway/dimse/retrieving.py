"""Series out of an archive.

C-FIND says what it has, C-MOVE or C-GET brings it here.
"""

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
from gateway.instances import is_approved
from gateway.rules import Sent
from gateway.store import Store, series_id
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
    :ivar priors: how many earlier series of the patient with approved contours are fetched too, for QA alone.
    """

    series_uid: str
    study_uid: str = ""
    structure_sets: bool = False
    priors: int = 0


@dataclass(frozen=True, slots=True)
class Brought:
    """What came.

    :ivar files: how many, of all series.
    :ivar priors: Series Instance UIDs of the earlier series.
    :ivar note: why there are fewer of these than were asked for; empty where there are not.
    """

    files: int
    priors: tuple[str, ...] = ()
    note: str = ""


def fetch(archive: Peer, title: str, wanted: Wanted, store: Store, inbox: Inbox) -> Brought:
    """Bring a series here, and announce it.

    It is announced with the number of images that the archive says it has.

    Earlier series come after it; where they do not, the series itself is here all the same.

    :raises PeerFailed: the archive does not have it, or some of it did not come.
    """
    found = find(archive, title, study_uid=wanted.study_uid, series_uid=wanted.series_uid)
    if not found:
        raise PeerFailed("it has no such series", final=True)
    series, count = found[0], 0
    if wanted.structure_sets:
        for one in find(archive, title, study_uid=series.study_uid, modality="RTSTRUCT"):
            count += retrieve(archive, title, one, store, inbox)
    count += _bring(archive, title, series, store, inbox)
    if not wanted.priors:
        return Brought(count)
    priors: list[str] = []
    try:
        for came, uid in _priors(archive, title, series.study_uid, store, inbox):
            count, priors = count + came, [*priors, *uid]
            if len(priors) == wanted.priors:
                return Brought(count, tuple(priors))
    except PeerFailed as reason:
        return Brought(count, tuple(priors), f"earlier series: {reason}")
    return Brought(count, tuple(priors), f"earlier series with approved contours: {len(priors)} of {wanted.priors} are there")


def _bring(archive: Peer, title: str, series: Found, store: Store, inbox: Inbox) -> int:
    """Bring a series here, and note how many images it has; how many came."""
    if series.images is not None:
        store.announce(series.series_uid, series.images, inbox.now())
    came = retrieve(archive, title, series, store, inbox)
    store.announce(series.series_uid, max(came, series.images or 0), inbox.now())
    return came


# ── earlier series of a patient ───────────────────────────────────────────────────────────────────────────────────────


def _priors(archive: Peer, title: str, study_uid: str, store: Store, inbox: Inbox) -> Iterator[tuple[int, list[str]]]:
    """Bring RTSTRUCTs of earlier studies here, and each CT series that an approved one was drawn on: files and UIDs that came."""
    for study in _earlier_studies(archive, title, study_uid):
        sets = find(archive, title, study_uid=study, modality="RTSTRUCT")
        yield sum(retrieve(archive, title, one, store, inbox) for one in sets), []
        for series in find(archive, title, study_uid=study, modality="CT") if sets else []:
            if _has_approved(series.series_uid, store, inbox):
                store.mark_prior(series_id(series.series_uid, title))
                try:
                    yield _bring(archive, title, series, store, inbox), [series.series_uid]
                finally:
                    store.forget_marks()


def _has_approved(series_uid: str, store: Store, inbox: Inbox) -> bool:
    """Whether an approved RTSTRUCT that is here was drawn on a series; drafts beside it are set aside."""
    sets = {uid: is_approved(inbox.data / path) for uid, (path, _) in store.structure_sets(series_uid).items()}
    if any(sets.values()):
        for uid in sets.keys() - {uid for uid, approved in sets.items() if approved}:
            store.set_aside(uid, "it is not approved")
    return any(sets.values())


def _earlier_studies(archive: Peer, title: str, study_uid: str) -> list[str]:
    """Studies of the same patient that are not newer than a study, newest first.

    :raises PeerFailed: the archive does not say whose study it is.
    """
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID, query.PatientID, query.StudyDate = "STUDY", study_uid, "", ""
    patient, date = next(((_patient(one), _date(one)) for one in _asked(archive, title, query)), ("", ""))
    if not patient:
        raise PeerFailed("it does not say whose the series is (no Patient ID)", final=True)
    query.StudyInstanceUID, query.PatientID = "", patient
    # Patient ID is matched by wildcards, and not by every archive: what another patient has is not asked for.
    own = [one for one in _asked(archive, title, query) if _patient(one) == patient]
    others = [(_date(one), str(one.get("StudyInstanceUID", ""))) for one in own]
    earlier = [(when, uid) for when, uid in others if uid not in ("", study_uid) and when and (not date or when <= date)]
    return [uid for _, uid in sorted(earlier, reverse=True)]


def _patient(answer: Dataset) -> str:
    """The Patient ID, without the spaces around it, which mean nothing."""
    return str(answer.get("PatientID", "") or "").strip()


def _date(answer: Dataset) -> str:
    return str(answer.get("StudyDate", "") or "")


# ── asking an archive ─────────────────────────────────────────────────────────────────────────────────────────────────


def find(archive: Peer, title: str, *, study_uid: str = "", series_uid: str = "", modality: str = "") -> list[Found]:
    """Series of an archive (C-FIND at the series level).

    :raises PeerFailed: the archive is away, or cannot be asked.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID, query.SeriesInstanceUID, query.Modality = study_uid, series_uid, modality
    query.NumberOfSeriesRelatedInstances = ""
    return [_found(answer) for answer in _asked(archive, title, query)]


def _asked(archive: Peer, title: str, query: Dataset) -> list[Dataset]:
    with associated(archive, title, asked([contexts.FIND])) as association:
        if not association.accepted_contexts:
            raise PeerFailed("it does not take queries (C-FIND, study root)")
        return list(_answers(association.send_c_find(query, contexts.FIND)))


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
    """Bring a series here; how many images came.

    The archive's ``retrieve`` names the way.

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
