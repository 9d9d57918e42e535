"""``python -m worker``: a Celery worker with one process for jobs, on the queue and the job table that the settings name."""

import sys
import warnings

from celery.exceptions import SecurityWarning

from oarlock.errors import OarlockError
from oarlock.rtstruct.profiles import check_default, read_profiles
from oarlock.settings import Settings
from oarlock.store.migrations import DatabaseNewer
from worker.app import app
from worker.runtime import check_schema, manifests_of


def main() -> int:
    """Work until a signal asks to stop; 0 after an orderly end."""
    settings = Settings()
    try:
        _ = settings.site  # a bad file is said now, not with the first comparison
        names = manifests_of(settings.models)
        check_default(read_profiles(settings.profiles), settings.profile)
        check_schema(settings)
    except (DatabaseNewer, OarlockError) as error:
        print(f"Oarlock's worker cannot start: {error}", file=sys.stderr)
        return 1
    if settings.model not in names:
        found = ", ".join(names) or "none"
        print(
            f"Oarlock's worker cannot start: {settings.models} has no model '{settings.model}' (found: {found})", file=sys.stderr
        )
        return 1
    warnings.filterwarnings("ignore", category=SecurityWarning)  # of pickled messages as root; ours are JSON
    worker = app.Worker(without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True)
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
