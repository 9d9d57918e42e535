from tests.worker.conftest import series, tiny_manifest  # noqa: F401 - fixtures
