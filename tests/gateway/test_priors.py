"""Which studies count as earlier ones of the same patient."""

import pytest
from pydicom.dataset import Dataset

from gateway.configuration import Peer
from gateway.dimse import retrieving

pytestmark = pytest.mark.slow


def study(uid: str, patient: str, date: str) -> Dataset:
    answer = Dataset()
    answer.StudyInstanceUID, answer.PatientID, answer.StudyDate = uid, patient, date
    return answer


STUDIES = [
    study("1.1", "47*", "20260305"),
    study("1.2", "47* ", "20250305"),
    study("1.3", "4711", "20250305"),  # of another patient, whom the wildcard in the ID matches
]


def test_an_earlier_study_is_of_the_very_patient_though_their_id_holds_a_wildcard(monkeypatch: pytest.MonkeyPatch) -> None:
    def archive(_peer: Peer, _title: str, query: Dataset) -> list[Dataset]:
        return [one for one in STUDIES if query.StudyInstanceUID in ("", one.StudyInstanceUID)]

    monkeypatch.setattr(retrieving, "_asked", archive)
    peer = Peer(name="pacs", title="PACS")
    assert retrieving._earlier_studies(peer, "OARLOCK", "1.1") == ["1.2"]
