"""The kept corpus again, without a fuzzer: every input of every target, with little memory and little time.

    python -m tests.fuzz.replay [--every 5]

Prints what went wrong, a line an input, and exits with 1 if anything did. A claim of memory on the word of an input fails in the
process itself; one that takes longer than all of them together should is ended by the system.
"""

import argparse
import logging
import resource
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS, ground

ROOM_BYTES = 1 << 30
"""What an input of some kilobytes may make the process claim: an RTSTRUCT may inflate to 256 MiB, and is taken apart then."""

CPU_LIMIT_S = 120


def failures(run: Callable[[bytes], None], inputs: Iterable[bytes]) -> Iterator[str]:
    """What each input that is neither accepted nor refused led to."""
    for number, content in enumerate(inputs, start=1):
        try:
            run(content)
        except Exception as error:
            yield f"input {number} ({len(content)} bytes): {error!r}"


def limit_memory() -> None:
    """Allow the process a little more than it has."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM_BYTES, resource.RLIM_INFINITY))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.replay", description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="only each n-th input of a target (default: all)")
    every = parser.parse_args().every
    warnings.simplefilter("ignore")
    logging.disable()
    ground()
    limit_memory()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, resource.RLIM_INFINITY))
    tried, found = 0, 0
    for name, target in TARGETS.items():
        inputs = [*target.seeds(), *corpus.read(name)][::every]
        tried += len(inputs)
        for failure in failures(target.run, inputs):
            found += 1
            print(f"{name}, {failure}")
    print(f"{tried} inputs")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
