"""Telemetry of the packages that we use: reports to their makers, switched off before each package is imported.

Nothing that this package does by itself reports anything to anybody. Some of the packages it calls do by default: which
models run on which machine, under an identifier that is kept in the user's cache. Each has a switch, which must be set
before the package is imported, or in OpenVINO's case a package of its own, which is hidden during the import.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# By the name of the package that is imported, as its documentation states
SWITCHES = {
    "accelerate": {"HF_HUB_DISABLE_TELEMETRY": "1"},
    "dvclive": {"DVC_NO_ANALYTICS": "1"},
    "huggingface_hub": {"HF_HUB_DISABLE_TELEMETRY": "1"},
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    "onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"},
    "ray": {"RAY_USAGE_STATS_ENABLED": "0"},
    "trackio": {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"},
    "wandb": {"WANDB_ERROR_REPORTING": "false"},
}
OPENVINO_TELEMETRY = "openvino_telemetry"


def disable_telemetry(package: str) -> None:
    """Set the switches of ``package`` in the environment; call this before importing it.

    A variable that the user has set keeps its value.
    """
    for name, value in SWITCHES.get(package, {}).items():
        os.environ.setdefault(name, value)


@contextmanager
def hide_openvino_telemetry() -> Iterator[None]:
    """Hide the telemetry package while openvino is imported, which does not need it.

    Otherwise the import reports to a statistics service, unless the user has opted out, from a process that it forks
    while threads run. Where processes are spawned, that one imports the main program again and occupies a core for its
    first second.
    """
    if OPENVINO_TELEMETRY in sys.modules:
        yield
        return
    sys.modules[OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        sys.modules.pop(OPENVINO_TELEMETRY, None)  # another thread may have removed it already
