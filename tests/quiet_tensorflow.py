"""TensorFlow without log messages, on one thread. Shared by all tests, as its threads can only be set once."""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any

import pytest


@cache
def tensorflow() -> Any:
    """Import the package when first needed, which takes seconds; skip the test if it is not installed."""
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
