"""Real processes that begin in a moment."""

import multiprocessing

# Each is forked from one process that has imported what they need: importing it takes a second of a core.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["__main__", "psycopg", "tests.store.test_job_store", "tests.store.test_migrations"])
