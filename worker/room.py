"""Room: whether the results of a job have a place to go."""

from oarlock.settings import Settings
from oarlock.store.files import Storage


class Room:
    """Looks at the data folder and at the disk that it lies on."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._least, self._storage = settings.reserve_bytes, storage

    def is_left(self) -> bool:
        """Whether nothing is wanting."""
        return self.want() is None

    def want(self) -> str | None:
        """What keeps jobs from being done here, in words."""
        try:
            free = self._storage.free_bytes()
        except OSError:
            return "the data folder of the service is not there (is it mounted?)"
        return None if free >= self._least else "there is no room on the disk for results"
