"""``make bench``: every benchmark, each in a process of its own.

So one's memory does not count as another's.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run them all; the exit status of the first failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("series", type=Path, help="folder of one real CT series")
    parser.add_argument("--contours", type=Path, help="folder of the contours released with the paper")
    arguments = parser.parse_args()
    runs = [("stages", str(arguments.series)), ("reading", str(arguments.series)), ("upload",), ("followers",), ("dashboards",)]
    if arguments.contours:
        runs += [("rtstruct", str(arguments.contours)), ("qa", str(arguments.contours))]
    else:
        print("benchmarks.rtstruct and benchmarks.qa need expert contours: add --contours FOLDER")
    for name, *rest in runs:
        print(f"\n── benchmarks.{name} {' '.join(rest)}", flush=True)
        status = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *rest], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
