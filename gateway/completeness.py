"""When a series has come whole.

A decision over what is known of it and the clock.

No sender says so. A series that shows by itself that it is whole (one association brought all of it and was released, and its
slices are a stack without a gap) waits only a moment. Any other waits for quiet: over all associations, because some senders open
one for each image. A number that was announced and is not reached means quiet, whatever else there is.
"""

from dataclasses import dataclass
from enum import StrEnum


class Because(StrEnum):
    """Why a series counts as whole, or will."""

    FORCED = "a person said that it is whole"
    COUNTED = "as many images came as were announced, and no slice is missing between them"
    RELEASED = "one association brought all of it and was released, and no slice is missing"
    QUIET = "nothing came for a while"


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What is known of a series that is coming in.

    :ivar last_at: when the newest image came, in seconds.
    :ivar images: how many are here.
    :ivar announced: how many there will be by what was said; None where nothing was.
    :ivar listed: whether an RTSTRUCT lists its images.
    :ivar listed_missing: how many of those are not here.
    :ivar one_association: whether one association brought all of it, and was released.
    :ivar gapless: whether the slices are a stack without a gap; None where it was not looked at yet.
    :ivar forced: whether a person said that it is whole.
    """

    last_at: float
    images: int
    announced: int | None = None
    listed: bool = False
    listed_missing: int = 0
    one_association: bool = False
    gapless: bool | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait after the newest image, in seconds.

    Of a series that shows that it is whole, and of any other.
    """

    settled_s: float
    quiet_s: float


def due(facts: SeriesFacts, waits: Waits) -> tuple[float, Because]:
    """When a series counts as whole if nothing more comes, and why.

    Where ``gapless`` is None it is taken for true: who waits until then looks, and asks again.
    """
    if facts.forced:
        return facts.last_at, Because.FORCED
    quiet = facts.last_at + waits.quiet_s, Because.QUIET
    announced_missing = facts.announced is not None and facts.images < facts.announced
    if announced_missing or facts.listed_missing or facts.gapless is False:
        return quiet
    if facts.announced is not None or facts.listed:
        return facts.last_at + min(waits.settled_s, waits.quiet_s), Because.COUNTED
    if facts.one_association:
        return facts.last_at + min(waits.settled_s, waits.quiet_s), Because.RELEASED
    return quiet
