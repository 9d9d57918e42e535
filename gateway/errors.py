"""What the gateway says when it cannot go on.

Each message is a sentence without patient data.
"""


class SetupInvalid(ValueError):
    """The settings or the configuration file cannot be used.

    The message has a sentence for each problem.
    """


class ServiceAway(Exception):
    """The service cannot be reached, or asks for patience.

    The same call may succeed later.

    :ivar retry_after_s: what the service asks to wait; None where it does not say.
    :ivar broken: whether the service is there, and failed at this very call (500).
    """

    def __init__(self, reason: str, retry_after_s: float | None = None, *, broken: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s, self.broken = retry_after_s, broken


class ServiceRefused(Exception):
    """The service has answered, and no other answer will come.

    :ivar code: of its problem document; empty where it has none.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code = status, code


class PeerFailed(Exception):
    """A peer, server or folder did not do what it was asked.

    :ivar final: whether it would refuse the same again.
    """

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final
