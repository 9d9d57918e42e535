"""The other tests of this folder are collected only where torch is installed."""

import pytest

pytestmark = pytest.mark.slow


def test_torch_is_here_for_the_tests_of_model_export() -> None:
    pytest.importorskip("torch", reason="model_export needs torch: install the extra model-export")
