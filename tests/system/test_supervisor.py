"""The supervisor keeps its children alive and leaves none behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from oarlock.settings import Settings
from service.embedded import supervisor as supervising
from service.embedded.redis_server import PrivateRedis
from service.embedded.supervisor import DataFolderInUse, Supervisor, companions, exclusive
from tests.fixtures.processes import alive, eventually

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"])


def test_a_child_that_dies_is_started_again() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        started.append(sleeper())
        return started[-1]

    supervisor = Supervisor()
    supervisor.add("sleeper", start)
    supervisor.start()
    started[0].kill()
    assert eventually(lambda: len(started) == 2, within_s=10)
    supervisor.stop()
    assert all(child.returncode is not None for child in started)


def test_a_child_that_cannot_be_started_again_at_once_is_tried_again_and_costs_no_other_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervising, "RESTART_S", 0.1)  # else three attempts take 10 s
    other, started = [sleeper()], [sleeper()]
    failures = [OSError("no memory for a process"), TimeoutError("it does not answer")]

    def start() -> "subprocess.Popen[bytes]":
        if len(started) == 1 and started[0].poll() is not None and failures:
            raise failures.pop()
        if started[0].poll() is not None:
            started.append(sleeper())
        return started[-1]

    supervisor = Supervisor()
    supervisor.add("other", lambda: other[0])
    supervisor.add("sleeper", start)
    supervisor.start()
    started[0].kill()
    assert eventually(lambda: len(started) == 2, within_s=30)
    assert other[0].poll() is None
    supervisor.stop()
    assert all(child.returncode is not None for child in (*other, *started))


def test_what_cannot_be_started_is_said_at_once_and_nothing_stays_behind() -> None:
    first: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        first.append(sleeper())
        return first[0]

    supervisor = Supervisor()
    supervisor.add("sleeper", start)
    supervisor.add("missing", lambda: subprocess.Popen(["/no/such/program"]))
    with pytest.raises(FileNotFoundError):
        supervisor.start()
    assert first[0].returncode == -signal.SIGTERM


def test_a_second_service_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(DataFolderInUse, match="OARLOCK_DATA"), exclusive(tmp_path):
        pass


def test_services_on_one_redis_share_a_data_folder(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, redis_url="redis://localhost:1/0", embedded_worker=False)  # type: ignore[call-arg]
    with companions(settings), companions(settings):
        pass


def test_a_private_redis_ends_with_the_process_that_supervises_it_even_when_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from service.embedded.supervisor import Supervisor\n"
        "from service.embedded.redis_server import PrivateRedis\n"
        "redis = PrivateRedis(pathlib.Path(sys.argv[1]))\n"
        "supervisor = Supervisor()\n"
        "supervisor.add('redis', redis.start, ready=redis.wait_until_ready)\n"
        "supervisor.start()\n"
        "print(supervisor._children[0].process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    assert eventually(lambda: not alive(child), within_s=10)


def test_what_was_queued_is_there_after_the_private_redis_was_killed(tmp_path: Path) -> None:
    server = PrivateRedis(tmp_path)
    for attempt in range(2):
        process = server.start()
        server.wait_until_ready()
        with redis.Redis.from_url(server.url) as client:
            if attempt == 0:
                client.config_set("appendfsync", "always")  # otherwise the last second may be lost, as documented
                client.lpush("queue", *range(200))
            assert client.llen("queue") == 200
        process.kill()
        process.wait()
