from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import httpx
import pytest

import effnet
from effnet.serve.launch import serve
from effnet.serve.limits import ServerLimits
from effnet.serve.models import name_models
from tests.cli.conftest import Run, run  # noqa: F401 – a fixture


def test_names(tmp_path: Path) -> None:
    folder = tmp_path / "flowers"
    folder.mkdir()
    for name in ("model.safetensors", "small.onnx"):
        (folder / name).write_bytes(b"")
    sources = [str(folder), str(folder / "small.onnx"), "b0", f"mine={folder}"]
    assert name_models(sources) == dict(
        zip(("flowers", "small", "b0", "mine"), [*sources[:3], str(folder)], strict=True)
    )
    assert list(name_models([str(folder / "model.safetensors")])) == ["flowers"]
    with pytest.raises(ValueError, match=f"two models would be called b0: give one another name, as other={folder}"):
        name_models(["b0", f"b0={folder}"])


def test_a_port_that_is_taken_is_said_before_anything_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 cannot be had .*: give another --port"):
            serve(["no/such/model"], port=port)
    with pytest.raises(ValueError, match="no address of this machine"):
        serve(["b0"], host="no.such.host.invalid")


def test_a_network_without_a_classifier(tmp_path: Path) -> None:
    path = effnet.save(effnet.create("nano", classes=0), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x has no classifier, and so no answers to serve"):
        serve([str(path)], port=0, engine="eager", limits=ServerLimits())


def test_a_package_that_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setitem(sys.modules, "effnet.serve.app", None)
    done = run("serve", "b0")
    assert done.status == 1
    assert 'pip install "effnet[serve]"' in done.err


def test_wrong_options(run: Run) -> None:  # noqa: F811
    for words in (["serve"], ["serve", "b0", "--port", "99999"], ["serve", "b0", "--queue", "0"]):
        assert run(*words).status == 2
    assert "no/such/model.pth" in run("serve", "no/such/model.pth", "--port", "0").err


def test_sigterm_ends_it_well_after_the_last_answer(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    command = "from effnet.cli import main; raise SystemExit(main())"
    words = ["serve", str(weights), "--port", "0", "--engine", "eager", "--batch", "32", "--wait-ms", "1500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", command, *words], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(
            r"effnet: serving (.+) \(eager, up to 32 at once\) at (http://\S+); stop with Ctrl\+C\n", line
        )
        assert found, line
        address = found[2]

        def ask(number: int) -> int:
            files = {"file": ("x.png", photos[number][0])}
            return httpx.post(f"{address}/v1/predict", files=files, timeout=30).status_code

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, number) for number in range(8)]
            while 'accepted":8' not in httpx.get(f"{address}/healthz").text:
                sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert [one.result() for one in asked] == [200] * 8
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)
    finally:
        process.kill()
        process.communicate()
