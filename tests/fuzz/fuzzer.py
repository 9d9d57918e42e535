"""One fuzzer: libFuzzer by way of atheris on one target, in this process, until its time is up.

    python -m tests.fuzz.fuzzer TARGET FINDINGS [libFuzzer's options] CORPUS …

It goes on after a finding, which it writes down once for each place it comes from. libFuzzer itself ends the process for an input
that takes too long, or for which the process grows too large.
"""

import hashlib
import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

INSTRUMENTED = ["oarlock", "service", "zipfile", "python_multipart", "pydicom.charset", "pydicom.uid", "tomllib"]
with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
    from tests.fuzz.replay import limit_memory
    from tests.fuzz.targets import TARGETS, ground


class Findings:
    """Inputs for which something happened that must not, one for each place that it comes from."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._known = folder, {path.name.split("-")[0] for path in folder.glob("*.txt")}

    def note(self, error: BaseException, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = [(frame.filename, frame.lineno) for frame in frames if "/tests/" not in frame.filename][-2:]
        name = hashlib.sha256(repr((type(error), place)).encode()).hexdigest()[:12]
        if name not in self._known:
            self._known.add(name)
            (self._folder / f"{name}-{type(error).__name__}.bin").write_bytes(data)
            (self._folder / f"{name}-{type(error).__name__}.txt").write_text("".join(traceback.format_exception(error)))
            print(f"FINDING {name}: {error!r}", file=sys.stderr)


def watched(run: Callable[[bytes], None], findings: Findings) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        try:
            run(data)
        except Exception as error:
            findings.note(error, data)

    return one


def main() -> None:
    name, findings, *options = sys.argv[1:]
    target = TARGETS[name]
    warnings.simplefilter("ignore")
    logging.disable()
    ground()
    limit_memory()
    words = ground().folder / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))
    options = [f"-max_len={target.largest}", *([f"-dict={words}"] if target.words else []), *options]
    atheris.Setup([str(_again(name, findings)), *options], watched(target.run, Findings(Path(findings))))
    atheris.Fuzz()


def _again(name: str, findings: str) -> Path:
    """A program that is this one: libFuzzer starts itself anew for a merge, and takes its first argument for what it is."""
    program = ground().folder / "fuzzer"
    command = shlex.join([sys.executable, "-m", "tests.fuzz.fuzzer", name, findings])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o700)
    return program


if __name__ == "__main__":
    main()
