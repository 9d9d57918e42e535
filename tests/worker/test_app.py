import json
import logging
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from kombu.message import Message

from oarlock.logs import JSONFormatter
from oarlock.settings import Settings
from oarlock.store.jobs import CONTOUR_SERIES, QUEUE
from worker.app import to_configuration

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def settings(**values: object) -> Settings:
    return Settings(data=Path("var"), redis_url="unix:///run/redis.sock", **values)  # type: ignore[arg-type]


def test_a_message_is_never_given_to_a_second_worker_while_the_first_may_still_run() -> None:
    configuration = to_configuration(settings(job_limit_s=100.0))
    assert configuration["broker_transport_options"]["visibility_timeout"] > configuration["task_time_limit"] == 100.0


def test_what_lost_jobs_in_trials_is_switched_off_and_what_kept_them_is_on() -> None:
    configuration = to_configuration(settings())
    assert configuration["task_acks_late"]
    assert configuration["task_reject_on_worker_lost"]
    assert configuration["task_retry_on_worker_lost"]
    assert configuration["worker_prefetch_multiplier"] == configuration["worker_concurrency"] == 1
    assert not configuration["worker_cancel_long_running_tasks_on_connection_loss"]
    assert configuration["task_default_queue"] == QUEUE


def test_the_task_is_bounded_and_waits_for_the_lease_of_its_lost_process() -> None:
    from worker.tasks import contour_series

    assert contour_series.name == CONTOUR_SERIES
    assert contour_series.max_retries == 2
    assert contour_series.default_retry_delay > Settings().lease_s


def test_the_parent_process_loads_nothing_that_draws_and_reads_no_settings_before_it_starts() -> None:
    script = "import sys, worker.__main__, worker.tasks, worker.settings as s; "
    script += "print([m for m in ('onnxruntime', 'scipy', 'cv2') if m in sys.modules], s.settings.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] 0\n"


def test_what_libraries_say_about_a_value_is_not_logged() -> None:
    said = "import logging, warnings; warnings.warn('Canary'); logging.getLogger('pydicom').warning('Canary')"
    command = [sys.executable, "-c", f"from oarlock import logs; logs.set_up(); {said}; logging.getLogger('x').info('heard')"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["heard"]


def test_a_log_line_is_json_with_its_facts_and_without_the_message_of_an_error() -> None:
    try:
        {}["Canary^Yellow"]
    except KeyError:
        record = logging.LogRecord("worker", logging.ERROR, "file", 1, "job failed", (), sys.exc_info())
    record.job_id = "job-1"
    event = json.loads(JSONFormatter().format(record))
    assert (event["event"], event["job_id"], event["error"], event["level"]) == ("job failed", "job-1", "KeyError", "error")
    assert "Canary" not in json.dumps(event)


@pytest.mark.parametrize(
    "happens",
    [
        "app = celery.Celery(); build_tracer('t', app.task(name='t')(fly), app=app)('id', (), {})",
        "threading.Thread(target=fly).start()",
        "fly()",
        "asyncio.run(forgotten())",
        "logging.getLogger('x').error('it failed: %s', 'Canary', exc_info=KeyError('Canary'))",
    ],
    ids=["task", "thread", "process", "asyncio", "quoted"],
)
def test_an_error_that_nobody_caught_is_logged_without_its_message(happens: str) -> None:
    script = f"""
import asyncio, gc, logging, threading
import celery
from celery.app.trace import build_tracer
from oarlock import logs

def fly():
    raise KeyError("Canary^Yellow")

async def forgotten():
    async def fails():
        fly()
    task = asyncio.ensure_future(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()

logs.set_up(replace=True)
{happens}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Canary" not in done.stderr
    assert [json.loads(line)["error"] for line in done.stderr.splitlines()] == ["KeyError"]


def test_a_compressed_message_is_refused_before_it_is_inflated() -> None:
    content = zlib.compress(bytes(1_000_000))
    sent: dict[str, Any] = {"body": content, "headers": {"compression": "application/x-gzip"}}
    message = Message(**sent)
    assert [str(error) for _, error, _ in message.errors or []] == ["a compressed message is not read"]
    assert len(message.body or "") == len(content)
