"""The Celery application (ADR 0004).

Each setting that is not the default is there because its opposite lost a job.
"""

import os
from typing import Any

from billiard.process import active_children
from celery import Celery, signals
from kombu import compression

from oarlock import logs
from oarlock.settings import Settings
from oarlock.store.jobs import CONTOUR_SERIES, QUEUE
from worker.gate import Acknowledgements, Gate
from worker.lease_keeper import HAND_BACK
from worker.settings import settings


def to_configuration(settings: Settings) -> dict[str, Any]:
    """Celery's settings from ours."""
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": settings.broker_transport_options(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "include": ["worker.tasks"],
        "task_default_queue": QUEUE,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,  # the job table is the truth
        "task_acks_late": True,  # a message is done when its job is
        "task_reject_on_worker_lost": True,
        "task_retry_on_worker_lost": True,  # bounded by the task's max_retries; rejecting alone would loop without end
        "task_time_limit": settings.job_limit_s,
        # The message of a killed process comes again when the lease of its job has run out.
        "task_annotations": {CONTOUR_SERIES: {"max_retries": 2, "default_retry_delay": int(settings.lease_s) + 1}},
        "worker_pool": "prefork",
        "worker_pool_start_method": "spawn",  # a CUDA context does not survive a fork
        "worker_concurrency": 1,  # one process a device
        "worker_prefetch_multiplier": 1,  # a waiting job belongs to whoever is free, not to who saw it first
        "worker_proc_alive_timeout": 300.0,  # at 60 s, a machine that was too busy killed and started processes without end
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # True lost a job when Redis was restarted
        "worker_enable_remote_control": False,  # cancellation is a flag in the job table
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def _refuse_compressed(_: bytes) -> bytes:
    """Ours hold an id, and are not compressed: 284 KiB could become gigabytes in the worker."""
    raise ValueError("a compressed message is not read")


for kind in compression.encoders():
    compression.register(_refuse_compressed, _refuse_compressed, kind)

app = Celery("oarlock")
app.add_defaults(lambda: to_configuration(settings()))  # read when Celery first needs it, not at import
app.steps["consumer"].update({Gate, Acknowledgements})


@signals.setup_logging.connect
def _set_up_logging(**_: object) -> None:
    logs.set_up(replace=True)


@signals.worker_shutting_down.connect
def _hand_back(**_: object) -> None:
    """Tell the busy process to hand its job back at its next step, so that ending takes seconds, not minutes."""
    for process in active_children():
        if process.pid is not None:
            os.kill(process.pid, HAND_BACK)
