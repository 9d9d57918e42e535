"""``python -m oarlock.cli``: the command oarlock."""

import sys

from oarlock.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
