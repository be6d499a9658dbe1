"""The machine, its limits, its cores, and processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from effnet.timing import (
    Machine,
    describe_machine,
    installed_versions,
    measure_peaks,
    peak_memory,
    pin_to_cores,
    run_command,
    run_in_subprocess,
)
from effnet.timing.machine import usable_cores


def test_machine_goes_to_json_and_back() -> None:
    here = describe_machine()
    assert Machine.from_json(here.to_json()) == here
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert here.cpu in here.describe()
    assert "torch" in installed_versions()


def test_describing_the_machine_needs_no_torch() -> None:
    code = "import sys, effnet.timing as c; c.describe_machine(); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_peaks_are_measured_once() -> None:
    found = measure_peaks(1)
    assert found is measure_peaks(1)
    assert found.float32 > 1e8
    assert found.macs("float32") == found.float32
    assert found.macs("int8") == 0
    assert found.bandwidth(1) == found.cache
    assert found.bandwidth(1e12) == found.memory > 1e8
    with pytest.raises(ValueError, match="threads"):
        measure_peaks(0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_pinning_moves_running_threads() -> None:
    ready, done = threading.Event(), threading.Event()
    numbers: list[int] = []

    def work() -> None:
        numbers.append(threading.get_native_id())
        ready.set()
        done.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(30)
    before = usable_cores()
    try:
        with pin_to_cores(1) as cores:
            assert len(cores) == 1
            assert usable_cores() == cores
            assert os.sched_getaffinity(numbers[0]) == set(cores)
            with pytest.raises(ValueError, match="cannot pin to 2 cores: this process may use only 1"), pin_to_cores(2):
                pass
        assert usable_cores() == before
        assert os.sched_getaffinity(numbers[0]) == set(before)
    finally:
        done.set()
        thread.join()
    for wrong in (0, [], [10**6]):
        with pytest.raises(ValueError, match="core"), pin_to_cores(wrong):
            pass


def test_without_pinning_a_warning_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pin_to_cores(1) as cores:
        assert len(cores) == 1
    assert "cannot pin" in caplog.text


def test_a_child_process_reports_its_time_and_memory() -> None:
    slept = run_in_subprocess(time.sleep, 0.2)
    assert slept.seconds >= 0.2
    held = run_in_subprocess(bytearray, 10**8)
    assert len(held.value) == 10**8
    assert held.peak_bytes > held.peak_growth >= 0.9e8
    with pytest.raises(ValueError, match="sleep"):
        run_in_subprocess(time.sleep, -1)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_crash_is_not_reported_as_out_of_memory() -> None:
    with pytest.raises(ChildProcessError, match=r"ended with exit status 3"):
        run_in_subprocess(os._exit, 3)
    with pytest.raises(ChildProcessError, match=r"crashed \(SIGABRT\)"):
        run_in_subprocess(os.abort)
    with pytest.raises(ChildProcessError, match="killed"):
        run_in_subprocess(signal.raise_signal, signal.SIGKILL)


def test_a_command_reports_its_time_and_memory() -> None:
    code = "import os, time; x = bytearray(os.urandom(10**6) * 80); time.sleep(0.1); print(os.environ['WORD'])"
    done = run_command([sys.executable, "-c", code], {"WORD": "said"})
    assert done.value.strip() == "said"
    assert done.seconds > 0.1
    assert sys.platform != "linux" or done.peak_bytes > 8e7
    with pytest.raises(ValueError, match="ended with exit status 3: no"):
        run_command([sys.executable, "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)"])


def test_peak_memory_of_an_ended_process() -> None:
    assert peak_memory() > 1e7
    if sys.platform == "linux":
        with pytest.raises(ProcessLookupError):
            peak_memory(2**22 + 1)
