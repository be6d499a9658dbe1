"""Nothing reports to anybody: the switches are set before the packages are imported, and no verb looks up a host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import effnet
from effnet import telemetry

CACHE_VARIABLES = ("XDG_CACHE_HOME", "ORT_TELEMETRY_STORAGE", "ORT_DISABLE_TELEMETRY", "EFFNET_HOME")


def run_python(code: str, home: Path, **variables: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in CACHE_VARIABLES}
    env |= {"HOME": str(home), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", telemetry.SWITCHES)
def test_switches_are_set_unless_the_user_has(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in telemetry.SWITCHES[package]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    telemetry.disable_telemetry(package)
    assert {name: os.environ[name] for name in telemetry.SWITCHES[package]} == telemetry.SWITCHES[package]
    for name in telemetry.SWITCHES[package]:
        monkeypatch.setenv(name, "as I like it")
    telemetry.disable_telemetry(package)
    assert {os.environ[name] for name in telemetry.SWITCHES[package]} == {"as I like it"}


def test_onnxruntime_leaves_no_identifier_in_the_users_cache(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    code = (
        "import sys; from contextlib import suppress; from pathlib import Path; "
        "from effnet.runtime.onnxruntime import open_session\n"
        f"with suppress(ValueError): open_session(Path({str(tmp_path / 'x.onnx')!r}), 1)\n"
        "print('onnxruntime' in sys.modules)"
    )
    assert run_python(code, tmp_path) == "True"
    assert [path.name for path in tmp_path.rglob("*")] == ["x.onnx"]


def test_every_import_of_a_package_that_reports_is_behind_its_switch() -> None:
    """Read from the source: ``import onnxruntime`` and its like follow the call that switches its telemetry off."""
    for path in Path(effnet.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for package, switch in ((name, f'disable_telemetry("{name}")') for name in telemetry.SWITCHES):
            imports = [f"    import {package}\n", f"    from {package} ", f'import_extra("{package}"']
            if any(each in text for each in imports):
                assert switch in text, f"{path.name} imports {package}"
        assert "    import openvino\n" not in text or "hide_openvino_telemetry" in text or "get_core()" in text, path


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that records every host that is looked up and every connection that leaves the machine."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("requires Linux and a C compiler")
    library = tmp_path_factory.mktemp("resolver") / "resolver.so"
    source = Path(__file__).with_name("recording_resolver.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def test_the_resolver_records(resolver: Path, tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "for call in (lambda: socket.getaddrinfo('a.invalid', 80), lambda: socket.gethostbyname('b.invalid'),"
        " lambda: socket.socket().connect(('192.0.2.1', 80))):\n"
        "    try: call()\n"
        "    except OSError: pass\n"
    )
    log = tmp_path / "log"
    run_python(code, tmp_path, LD_PRELOAD=str(resolver), RECORDED_LOOKUPS=str(log))
    assert log.read_text().split() == ["a.invalid", "b.invalid", "connect"]


@pytest.mark.sweep
def test_no_verb_looks_up_a_host(resolver: Path, tmp_path: Path) -> None:
    """Each in its own process, with no variable that switches anything off, and time to report at the end."""
    log, photos = tmp_path / "log", tmp_path / "photos"
    code = (
        "from PIL import Image; from pathlib import Path; import random, effnet, torch\n"
        f"root = Path({str(photos)!r})\n"
        "for split in ('train', 'val'):\n"
        "    for name in ('ant', 'bee'):\n"
        "        for number in range(12):\n"
        "            path = root / split / name / f'{number}.png'; path.parent.mkdir(parents=True, exist_ok=True)\n"
        "            Image.frombytes('RGB', (32, 32), random.randbytes(3072)).save(path)\n"
        "model = effnet.create('nano', classes=2); model.labels = effnet.Labels(('ant', 'bee'))\n"
        f"effnet.save(model, {str(tmp_path / 'm.safetensors')!r})\n"
    )
    run_python(code, tmp_path)
    model, image = str(tmp_path / "m.safetensors"), str(photos / "val" / "ant" / "0.png")
    verbs = [
        *(["models"], ["models", "--weights"], ["show", "b0"], ["draw", "b0"], ["scale", "--phi", "1"], ["version"]),
        *(["predict", image, "--model", model, "--engine", kind] for kind in ("eager", "onnxruntime", "openvino")),
        *(["predict", image, "--model", model, "--engine", "litert"], ["predict", str(photos), "-m", model]),
        ["predict", str(photos), "--model", model, "--output", "all.csv"],
        ["explain", model, image, "--output", "map.png"],
        ["train", str(photos), "--model", "nano", "--weights", "none", "--epochs", "1", "--size", "32", "--out", "run"],
        ["evaluate", model, str(photos)],
        ["convert", model, "timm.pth", "--to", "timm"],
        *(["export", model, f"out{suffix}"] for suffix in (".onnx", ".xml", ".tflite")),
        ["export", model, "int8.onnx", "--precision", "int8", "--images", str(photos / "train")],
        ["bench", model, "--runs", "1", "--against", "none", "--seconds", "1"],
        *(["reproduce", "table2"], ["shard", str(photos / "train"), "shards"]),
        ["doctor", model, str(photos / "val"), "--max-images", "20"],
        ["search", "network", str(photos), "--trials", "1", "--epochs", "1", "--final", "1", "--final-epochs", "1"],
    ]
    start = "import sys, time, os; os.chdir({cwd!r}); sys.argv = ['effnet', *{words!r}]\n"
    main = "from effnet.cli.app import main; status = main(); time.sleep(1); print('status', status)"
    for words in verbs:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        code = start.format(cwd=str(tmp_path), words=words) + main
        out = run_python(code, home, LD_PRELOAD=str(resolver), RECORDED_LOOKUPS=str(log))
        assert out.endswith(("status 0", "status 1")), words
        assert not log.exists(), f"{' '.join(words)}: {log.read_text()}"
        assert not list(home.rglob("*Microsoft*")), words
