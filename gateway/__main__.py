"""``python -m gateway [COMMAND]``: receive, or look at what is held.

A command may also tell the gateway something.
"""

import sys

from gateway.commands import main

if __name__ == "__main__":
    sys.exit(main())
