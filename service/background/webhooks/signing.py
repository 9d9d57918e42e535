"""Signatures of callbacks, as Standard Webhooks 1.0.0 has them (https://www.standardwebhooks.com)."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from standardwebhooks import Webhook

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how a secret begins
_SHORTEST_SECRET: Final = 24


def to_signer(text: str) -> Webhook:
    """What signs with a secret: ``whsec_`` and base64.

    The library takes any text for a secret; a mistyped one would make signatures that nobody can check.

    :raises ValueError: if it is malformed or too short.
    """
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.startswith(SECRET_PREFIX) or len(secret) < _SHORTEST_SECRET:
        msg = f"a callback secret must be {SECRET_PREFIX} and at least {_SHORTEST_SECRET} random bytes in base64"
        raise ValueError(msg)
    return Webhook(text)


def to_headers(signers: Sequence[Webhook], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that a receiver checks.

    :param at: when it is sent, in UTC.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signer.sign(message_id, at, body.decode()) for signer in signers),
    }
