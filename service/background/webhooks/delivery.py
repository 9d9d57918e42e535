"""Delivery of callbacks that are due."""

import logging
import ssl
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Final

from oarlock.errors import InvalidParameter
from oarlock.store.callbacks import Callback, CallbackState, CallbackStore
from service.background.webhooks.client import WebhookClient
from service.background.webhooks.rules import AddressRefused

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
AT_ONCE: Final = 4


class Messenger:
    """Delivers callbacks that are due, several at once.

    One slow receiver keeps few others waiting.
    """

    def __init__(self, store: CallbackStore, client: WebhookClient) -> None:
        self._store, self._client = store, client

    def deliver(self) -> None:
        """Make and send callbacks, once.

        Made of the jobs that have ended; sent if they are due.
        """
        self._store.collect()
        if due := self._store.claim():
            with ThreadPoolExecutor(AT_ONCE, "callback") as threads:
                list(threads.map(self._deliver, due))

    def _deliver(self, callback: Callback) -> None:
        delivered, outcome = self._attempt(callback)
        state = self._store.settle(callback, delivered=delivered, outcome=outcome)
        about = {"job_id": callback.job_id, "callback_id": callback.id, "attempt": callback.attempts + 1, "outcome": outcome}
        level = {CallbackState.DELIVERED: logging.INFO, CallbackState.WAITING: logging.WARNING, CallbackState.DEAD: logging.ERROR}
        log.log(level[state], "callback %s", state, extra=about)

    def _attempt(self, callback: Callback) -> tuple[bool, str]:
        try:
            status = self._client.call(callback)
        except AddressRefused:
            return False, "address refused"
        except InvalidParameter:
            return False, "host refused"
        except TimeoutError:
            return False, "timeout"
        except ssl.SSLCertVerificationError:
            return False, "certificate refused"
        except (OSError, HTTPException) as error:
            return False, f"not reached ({type(error).__name__})"
        return 200 <= status < 300, f"http {status}"
