"""`make fuzz`: the OpenAPI document against the service, then every target in turn, a minute at a time, on one core and politely,
until the time is up.

It begins with what earlier runs found worth keeping, adds what this one finds, keeps the smallest set that reaches as much, and
writes into docs/reliability.md what was run. Findings lie in build/fuzz/findings; with one of them it exits with status 1.
"""

import argparse
import hashlib
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from service.embedded.redis_server import PrivateRedis
from tests.fuzz import contract, corpus
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "fuzz"
PAGE = ROOT / "docs" / "reliability.md"
TURN_S = 60
CONTRACT_SHARE = 0.1
INPUT_LIMIT_S = 10
PROCESS_LIMIT_MB = 2_000
_TABLE = re.compile(r"(<!-- fuzz: written by make fuzz -->\n).*?(<!-- fuzz: end -->)", re.DOTALL)


@dataclass
class Run:
    """What was done with a target."""

    executions: int = 0
    cpu_s: float = 0.0
    slowest_s: int = 0
    peak_mb: int = 0
    inputs: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every way in.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--target", action="append", choices=TARGETS, help="one target; may be given again")
    options = parser.parse_args()
    chosen = options.target or list(TARGETS)
    os.nice(19)
    runs = {name: Run() for name in chosen}
    for name in chosen:
        _fill(WORK / "corpus" / name, [*TARGETS[name].seeds(), *corpus.read(name)])
    until = monotonic() + options.minutes * 60
    calls = _hold_contract(round(options.minutes * 60 * CONTRACT_SHARE)) if chosen == list(TARGETS) else 0
    _fuzz(runs, until=until)
    for name, run in runs.items():
        run.inputs = _keep(name)
    findings = sorted(path for path in (WORK / "findings").glob("*/*") if path.suffix != ".txt")
    table = _table(runs, calls, options.minutes)
    if chosen == list(TARGETS):
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_TABLE.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", page), encoding="utf-8")
    print(table, *(f"finding: {path.relative_to(ROOT)}" for path in findings), f"{len(findings)} findings", sep="\n")
    return 1 if findings else 0


def _fuzz(runs: dict[str, Run], *, until: float) -> None:
    while monotonic() < until:
        for name, run in runs.items():
            seconds = round(min(TURN_S, until - monotonic()))
            if seconds > 0:
                _take_turn(name, run, seconds)


def _hold_contract(seconds: int) -> int:
    """Hold the OpenAPI document against a service; how many calls were made."""
    said = WORK / "findings" / "contract" / "said"
    said.parent.mkdir(parents=True, exist_ok=True)
    said.unlink(missing_ok=True)
    with (
        TemporaryDirectory(prefix="oarlock-fuzz-") as name,
        PrivateRedis(Path(name) / "redis").running() as url,
        contract.service(Path(name), url) as called,
    ):
        done = contract.hold(called, Path(name), "--max-time", str(seconds), "--no-shrink")
    if done.returncode:
        said.write_text(done.stdout + done.stderr, encoding="utf-8")
    return sum(int(count) for count in re.findall(r"(\d+) generated", done.stdout))


def _take_turn(name: str, run: Run, seconds: int) -> None:
    findings = WORK / "findings" / name
    findings.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-timeout={INPUT_LIMIT_S}", f"-rss_limit_mb={PROCESS_LIMIT_MB}"]
    before_s = _children_cpu_s()
    said = _fuzzer(name, *limits, "-print_final_stats=1", f"-artifact_prefix={findings}/", WORK / "corpus" / name)
    run.cpu_s += _children_cpu_s() - before_s
    counted = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", said)}
    run.executions += counted.get("number_of_executed_units", 0)
    run.slowest_s = max(run.slowest_s, counted.get("slowest_unit_time_sec", 0))
    run.peak_mb = max(run.peak_mb, counted.get("peak_rss_mb", 0))
    if "number_of_executed_units" not in counted:
        print(f"{name}: ended early\n{said[-3_000:]}", file=sys.stderr)


def _children_cpu_s() -> float:
    """CPU time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _keep(name: str) -> int:
    """Keep the inputs without which something would not be reached."""
    grown, kept = WORK / "corpus" / name, WORK / "kept" / name
    kept.mkdir(parents=True, exist_ok=True)
    for path in kept.iterdir():
        path.unlink()
    _fuzzer(name, "-merge=1", kept, grown)
    inputs = [path.read_bytes() for path in kept.iterdir()]
    corpus.write(name, inputs)
    return len(inputs)


def _fuzzer(name: str, *options: str | Path) -> str:
    command = [sys.executable, "-m", "tests.fuzz.fuzzer", name, WORK / "findings" / name, *options]
    with TemporaryDirectory(prefix="oarlock-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        environment = os.environ | {"TMPDIR": folder}  # a process that ends for a finding clears nothing away
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


def _fill(folder: Path, inputs: Iterable[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for content in inputs:
        (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def _table(runs: dict[str, Run], calls: int, minutes: float) -> str:
    total = sum(run.executions for run in runs.values())
    lines = [f"{total:,} inputs and {calls:,} calls in {minutes:g} minutes on one core (`make fuzz`):", ""]
    lines += ["| target | CPU | inputs tried | slowest | most memory | kept |", "| --- | --- | --- | --- | --- | --- |"]
    for name, run in runs.items():
        slowest, cpu = f"{run.slowest_s} s" if run.slowest_s else "under 1 s", f"{run.cpu_s / 60:.1f} min"
        lines.append(f"| `{name}` | {cpu} | {run.executions:,} | {slowest} | {run.peak_mb} MB | {run.inputs} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
