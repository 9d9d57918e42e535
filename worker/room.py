"""Room: whether the disk has room for the results of a job."""

from oarlock.settings import Settings
from oarlock.storage import Storage


class Room:
    """Says whether there is room for the results of a job."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._least, self._storage = settings.reserve_bytes, storage

    def is_left(self) -> bool:
        """Whether enough of the disk is free; a data folder that does not answer has none."""
        try:
            return self._storage.free_bytes() >= self._least
        except OSError:
            return False
