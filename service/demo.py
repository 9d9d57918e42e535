"""``make demo``: one series through the whole service.

Over HTTP, the way a planning system would send it.

Starts the service on a folder of its own, posts the series, follows its progress, writes what came back into the output folder,
prints a line per organ, and stops everything.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import httpx

from oarlock.ct.series import check_headers
from oarlock.organs.catalogue import BY_NAME
from oarlock.phantom.patient import write_phantom
from oarlock.pipeline.organ_table import organ_table

READY_LIMIT_S: Final = 120.0
RESULTS: Final = {"rtstruct": "rtstruct.dcm", "qa": "qa.json", "preview.png": "preview.png"}


class DemoFailed(Exception):
    """The demo cannot go on; the sentence says why."""


def main() -> int:
    """Run the demo; 0 when an RTSTRUCT came back."""
    arguments = _arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="oarlock-demo-") as scratch:
            run(Path(scratch), series=arguments.series, reference=arguments.reference, out=arguments.out)
    except (DemoFailed, httpx.HTTPError, OSError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run(scratch: Path, *, series: Path | None, reference: Path | None, out: Path) -> None:
    """Send one series through a service of its own.

    The service lives in ``scratch``; the results are written into ``out``.
    """
    files = _files(series) if series else _phantom(scratch / "phantom")
    uploads = [*files, reference] if reference else files
    with _service(scratch / "data", log=out / "service.log") as url, httpx.Client(base_url=url, timeout=600) as client:
        job = _post(client, uploads)
        print(f"Job      {job['id']}: {job['series']['slices']} slices of {_spacing(job)} mm, model {job['model']['name']}")
        job = _follow(client, job["links"]["self"])
        for warning in job["warnings"]:
            print(f"Warning  {warning['detail']}")
        if job["state"] != "succeeded":
            raise DemoFailed(job["error"]["detail"] if job["error"] else f"the job was {job['state']}")
        for name, file in RESULTS.items():
            (out / file).write_bytes(_get(client, f"{job['links']['self']}/{name}").content)
    _table(out, files)
    print(f"\nWritten  {', '.join(str(out / file) for file in RESULTS.values())}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.demo", description=__doc__)
    parser.add_argument("--series", type=Path, help="folder or zip archive of one CT series; without it a phantom is made")
    parser.add_argument("--reference", type=Path, help="an RTSTRUCT of the same series to compare with")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the results are written")
    return parser.parse_args()


def _files(series: Path) -> list[Path]:
    if series.is_file():
        return [series]
    files = sorted(path for path in series.rglob("*") if path.is_file())
    if not files:
        raise DemoFailed(f"{series} holds no file")
    return files


def _phantom(folder: Path) -> list[Path]:
    print("Phantom  an analytic head and neck with its known contours as the reference (your own: make demo SERIES=folder)")
    images, reference = write_phantom(folder)
    return [*images, reference]


@contextmanager
def _service(data: Path, *, log: Path) -> Iterator[str]:
    """A service of its own on any free port; gives its address, and ends it with all of its children."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "OARLOCK_DATA": str(data),
        "OARLOCK_PORT": "0",
        "OARLOCK_HOST": "127.0.0.1",
        "OARLOCK_PROFILE": "generic",  # the table reads the organs by their TG-263 names
    }
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "service"], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield _address(process, log)
        finally:
            process.send_signal(signal.SIGINT)


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    assert process.stdout is not None  # stdout=PIPE
    line = process.stdout.readline()
    if "http://" not in line:
        raise DemoFailed(f"the service did not start; see {log}")
    url = "http://" + line.split("http://")[1].split()[0]
    deadline = monotonic() + READY_LIMIT_S
    with httpx.Client(timeout=READY_LIMIT_S) as client:  # one of its own for each call takes a fifth of a core
        while monotonic() < deadline:
            answer = client.get(f"{url}/readyz")
            if answer.status_code == httpx.codes.OK:
                print(f"Service  {url}")
                return url
            sleep(0.2)
    raise DemoFailed(f"the service was not ready within {READY_LIMIT_S:.0f} s: {answer.text}")


def _post(client: httpx.Client, files: list[Path]) -> dict[str, Any]:
    print(f"Sending  {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
    with ExitStack() as stack:
        parts = [("files", (f"{i}", stack.enter_context(path.open("rb")))) for i, path in enumerate(files)]
        answer = client.post("/v1/jobs", files=parts)
    return _checked(answer).json()  # type: ignore[no-any-return]


def _get(client: httpx.Client, path: str) -> httpx.Response:
    return _checked(client.get(path))


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    raise DemoFailed(
        f"{problem.get('title', answer.reason_phrase)} ({problem.get('code', answer.status_code)}). {problem.get('detail', '')}"
    )


def _follow(client: httpx.Client, path: str) -> dict[str, Any]:
    """Show the progress until the job has ended; gives the job as it ended."""
    started = monotonic()
    with client.stream("GET", f"{path}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data:"):
                _bar(json.loads(line.removeprefix("data:")), monotonic() - started)
    print()
    return _get(client, path).json()  # type: ignore[no-any-return]


def _bar(job: dict[str, Any], seconds: float) -> None:
    filled = round(30 * job["progress"])
    doing = job["stage"] if job["state"] == "running" else job["state"]
    end = "" if sys.stdout.isatty() else "\n"
    start = "\r" if sys.stdout.isatty() else ""
    print(
        f"{start}Progress {'━' * filled}{'─' * (30 - filled)} {job['progress']:4.0%} {doing:<11} {seconds:5.1f} s",
        end=end,
        flush=True,
    )


def _spacing(job: dict[str, Any]) -> str:
    return " × ".join(f"{value:.3g}" for value in job["series"]["spacing_mm"])


def _table(out: Path, files: list[Path]) -> None:
    """One line per organ, read back from the file that was delivered and not from what the service says of it."""
    with _series_files(files) as series:
        header = check_headers(series)
    print("", *organ_table(out / "rtstruct.dcm", json.loads((out / "qa.json").read_text()), header, BY_NAME), sep="\n")


@contextmanager
def _series_files(files: list[Path]) -> Iterator[list[Path]]:
    """The DICOM files themselves, also when they were sent as one zip archive."""
    if files[0].suffix.lower() != ".zip":
        yield files
        return
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(files[0]) as archive:
            archive.extractall(folder)
        yield [path for path in Path(folder).rglob("*") if path.is_file()]


if __name__ == "__main__":
    sys.exit(main())
