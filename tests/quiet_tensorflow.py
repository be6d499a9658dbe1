"""TensorFlow without its greetings, on one thread: one import for all tests, since its threads can be set but once."""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any

import pytest


@cache
def tensorflow() -> Any:
    """The package, imported when it is first needed, which takes seconds; skips the test where it is not installed."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("tensorflow")
        from absl import logging
    logging.set_verbosity(logging.ERROR)
    module.get_logger().setLevel("ERROR")
    module.config.threading.set_intra_op_parallelism_threads(1)
    module.config.threading.set_inter_op_parallelism_threads(1)
    return module
