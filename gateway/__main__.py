"""``python -m gateway``: receive; ``python -m gateway COMMAND``: look at what it holds, or tell it something."""

import sys

from gateway.commands import main

if __name__ == "__main__":
    sys.exit(main())
