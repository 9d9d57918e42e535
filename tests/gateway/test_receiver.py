"""Who may send."""

import pytest

from gateway.configuration import Configuration
from gateway.dimse.receiver import may_send

pytestmark = pytest.mark.slow

PEERS = [
    {"name": "a", "title": "A", "host": "10.0.0.1", "port": 104},
    {"name": "b", "title": "B", "host": "scanner.test", "port": 104},
    {"name": "c", "title": "C", "addresses": ["10.2.0.0/16", "::1"]},
    {"name": "d", "title": "D", "sends": False},
]


@pytest.mark.parametrize(
    ("title", "address", "allowed"),
    [
        ("A", "10.0.0.1", True),
        ("A", "::ffff:10.0.0.1", True),
        ("A", "10.0.0.2", False),
        ("B", "10.9.9.9", True),
        ("C", "10.2.3.4", True),
        ("C", "::1", True),
        ("C", "10.3.0.1", False),
        ("D", "127.0.0.1", False),
        ("STRANGER", "127.0.0.1", False),
    ],
)
def test_a_peer_sends_from_its_own_addresses_and_a_stranger_does_not(title: str, address: str, *, allowed: bool) -> None:
    assert may_send(Configuration.model_validate({"peer": PEERS}), title, address) is allowed


def test_without_a_peer_programs_of_this_machine_may_send_and_strangers_only_where_the_file_says_so() -> None:
    assert may_send(Configuration(), "ANY", "127.0.0.1")
    assert not may_send(Configuration(), "ANY", "10.0.0.1")
    assert may_send(Configuration.model_validate({"accept_unknown": True, "peer": PEERS}), "ANY", "10.0.0.1")
