"""``python -m worker``: a Celery worker with one process for jobs.

On the queue and the job table that the settings name.
"""

import os
import sys
import warnings
from contextlib import suppress

from celery.exceptions import SecurityWarning

from oarlock.errors import DatabaseUnavailable, OarlockError
from oarlock.rtstruct.profiles import check_default, read_profiles
from oarlock.segmentation.model_folder import ModelFolder
from oarlock.settings import Settings, SettingsInvalid
from oarlock.store.database import Database, DatabaseMissing
from oarlock.store.files import PRIVATE_UMASK
from oarlock.store.migrations import DatabaseNewer, DatabaseOlder
from worker.app import app
from worker.settings import settings


def main() -> int:
    """Work until a signal asks to stop; 0 after an orderly end."""
    os.umask(PRIVATE_UMASK)
    try:
        reason = _reason_not_to_start(settings())
    except (DatabaseNewer, OarlockError, SettingsInvalid) as error:
        reason = str(error)
    if reason:
        print(f"Oarlock's worker cannot start: {reason}", file=sys.stderr)
        return 1
    warnings.filterwarnings("ignore", category=SecurityWarning)  # of pickled messages as root; ours are JSON
    worker = app.Worker(without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True)
    worker.start()
    return int(worker.exitcode or 0)


def _reason_not_to_start(settings: Settings) -> str | None:
    """Why the first job would fail, or None; wrong files and a newer database raise their own errors."""
    if settings.redis_url is None:
        return "REDIS_URL is not set. Set it to the Redis server of the service; a service on this machine starts a worker itself"
    settings.check_sites()
    ModelFolder(settings.models, settings.model).check()
    check_default(read_profiles(settings.profiles), settings.profile)
    with suppress(DatabaseUnavailable, DatabaseMissing, DatabaseOlder):  # the gate waits until the service has made it right
        Database(settings.database, create=False).close()
    return None


if __name__ == "__main__":
    sys.exit(main())
