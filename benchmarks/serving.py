"""The server: throughput compared with inference without HTTP, latency at half load, and that no response is swapped.

    python benchmarks/serving.py PHOTOS [--model b0] [--requests 2000] [--rounds 3] [--many 10000]

PHOTOS is a folder of images, sent as they are, each as a raw body. The server is ``effnet serve`` in its own process
with default settings; the client is this process: bare sockets and requests built before the clock starts, since it
uses the same cores. Without HTTP: the files' bytes through `Predictor.predict_scores`, which decodes in threads ahead
of the network and uses its best batch size. Both take turns, after the engines have been chosen. Every response is
compared with what its image gets alone. Half load: requests at random moments (Poisson), half as many per second as
were answered at full load, timed from the moment they were due; and the same evenly spaced. Memory is the server's
resident size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from subjects import network, photos_of

from effnet.data.image_io import load_input
from effnet.prediction import Predictor
from effnet.timing import Stopwatch, describe_machine, installed_versions
from effnet.weights import save

CONCURRENCY = 16
WARM_UP_REQUESTS = 300
TOLERANCE = 1e-4  # of a probability: batches of another size sum in another order


class Client:
    """Keep-alive connections to a server."""

    def __init__(self, port: int, bodies: list[bytes], expected: list[tuple[int, float]]) -> None:
        head = "POST /v1/predict?top=1 HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n\r\n"
        self.requests = [head.format(len(body)).encode() + body for body in bodies]
        self.port, self.expected = port, expected
        self.free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
        self.wrong: list[str] = []
        self.batches: list[int] = []

    async def ask(self, number: int) -> None:
        """Send image ``number`` (modulo their count) and check the response."""
        if self.free.empty():
            self.free.put_nowait(await asyncio.open_connection("127.0.0.1", self.port))
        reader, writer = await self.free.get()
        which = number % len(self.requests)
        writer.write(self.requests[which])
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        body = await reader.readexactly(int(length[1]))
        self.free.put_nowait((reader, writer))
        if not head.startswith(b"HTTP/1.1 200 "):
            self.wrong.append(body.decode())
            return
        found = json.loads(body)
        index, share = self.expected[which]
        first = found["labels"][0]
        self.batches.append(found["batch_size"])
        if first["index"] != index or abs(first["probability"] - share) > TOLERANCE:
            self.wrong.append(f"image {which}: {first} for class {index}, {share}")

    def reconnect(self) -> None:
        """Use new connections: the server closes idle ones."""
        while not self.free.empty():
            self.free.get_nowait()[1].close()

    async def send_concurrently(self, count: int) -> float:
        """Return the seconds that ``count`` requests take, `CONCURRENCY` at a time."""
        self.reconnect()
        numbers, watch = iter(range(count)), Stopwatch()

        async def one() -> None:
            for number in numbers:
                await self.ask(number)

        await asyncio.gather(*(one() for _ in range(CONCURRENCY)))
        return watch.seconds

    async def send_one_by_one(self, count: int) -> list[float]:
        """Return the seconds of each of ``count`` requests, one after the other."""
        self.reconnect()
        found = []
        for number in range(count):
            watch = Stopwatch()
            await self.ask(number)
            found.append(watch.seconds)
        return found

    async def send_at_rate(self, count: int, rate: float, even: bool) -> list[float]:
        """Return the seconds of each of ``count`` requests at a fixed rate, whatever the server does."""
        self.reconnect()
        generator, watch = random.Random(0), Stopwatch()
        due, found = 0.0, []

        async def one(number: int, due: float) -> None:
            await self.ask(number)
            found.append(watch.seconds - due)

        tasks = []
        for number in range(count):
            due += 1 / rate if even else generator.expovariate(rate)
            await asyncio.sleep(max(0.0, due - watch.seconds))
            tasks.append(asyncio.create_task(one(number, due)))
        await asyncio.gather(*tasks)
        return found


@contextmanager
def run_server(model: Path) -> Iterator[tuple[int, int, str]]:
    """Yield a server's port, its process id, and its startup message."""
    command = "from effnet.cli.app import main; raise SystemExit(main())"
    words = [sys.executable, "-c", command, "serve", str(model), "--port", "0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = ""
    while "serving" not in line:
        line = process.stderr.readline()
        assert line, "the server did not start"
    port = re.search(r":(\d+);", line)
    assert port
    try:
        yield int(port[1]), process.pid, line.strip()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def resident_mib(process: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def predict_alone(predictor: Predictor, body: bytes) -> np.ndarray:
    """Return the image's probabilities, computed alone."""
    return predictor.compute(load_input(body, predictor.input_preprocess)[None], batch_size=1)[0]


def run_without_http(predictor: Predictor, bodies: list[bytes], count: int) -> float:
    """Return the seconds that decoding and inference of ``count`` images take."""
    watch = Stopwatch()
    done = sum(
        1 for _ in predictor.predict_scores((str(number), bodies[number % len(bodies)]) for number in range(count))
    )
    assert done == count
    return watch.seconds


async def measure(
    client: Client, process: int, predictor: Predictor, bodies: list[bytes], chosen: argparse.Namespace
) -> None:
    await client.send_concurrently(WARM_UP_REQUESTS)
    run_without_http(predictor, bodies, WARM_UP_REQUESTS)
    rates: dict[str, list[float]] = {"without HTTP": [], "served": []}
    client.batches.clear()
    for _ in range(chosen.rounds):
        rates["without HTTP"].append(chosen.requests / run_without_http(predictor, bodies, chosen.requests))
        rates["served"].append(chosen.requests / await client.send_concurrently(chosen.requests))
    print(f"| {CONCURRENCY} concurrent | images per second | min … max |\n|---|--:|--:|")
    for name, found in rates.items():
        print(f"| {name} | {np.median(found):.1f} | {min(found):.1f} … {max(found):.1f} |")
    ratio = np.median([one / other for one, other in zip(rates["served"], rates["without HTTP"], strict=True)])
    print(f"\nserved / without: {ratio:.3f}; batches of {np.mean(client.batches):.1f} on average\n", flush=True)

    alone = await client.send_one_by_one(min(300, chosen.requests))
    single, rate = float(np.median(alone)), float(np.median(rates["served"])) / 2
    print(f"one at a time: median {1e3 * single:.1f} ms, p99 {1e3 * np.quantile(alone, 0.99):.1f} ms\n")
    print("| half load | per second | median ms | p99 ms | p99 / one at a time |\n|---|--:|--:|--:|--:|")
    for name, even in (("at random moments", False), ("evenly spaced", True)):
        found = await client.send_at_rate(chosen.requests, rate, even)
        median, worst = np.quantile(found, (0.5, 0.99))
        print(f"| {name} | {rate:.0f} | {1e3 * median:.1f} | {1e3 * worst:.1f} | {worst / single:.2f} |", flush=True)

    print(f"\n| requests | server, MiB |\n|--:|--:|\n| 0 | {resident_mib(process):.1f} |")
    for part in range(10):
        await client.send_concurrently(chosen.many // 10)
        print(f"| {(part + 1) * (chosen.many // 10)} | {resident_mib(process):.1f} |", flush=True)
    print(f"\nresponses that were swapped or missing: {len(client.wrong)}{client.wrong[:3] or ''}")


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photos", type=Path)
    options.add_argument("--model", default="b0")
    options.add_argument("--requests", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--many", type=int, default=10_000)
    chosen = options.parse_args()
    paths = photos_of(chosen.photos)
    versions = installed_versions(("torch", "pillow", "onnxruntime", "openvino", "fastapi", "uvicorn"))
    print(f"{describe_machine().describe()}; {versions}\n")
    with TemporaryDirectory() as place:
        os.environ["EFFNET_HOME"] = f"{place}/home"
        torch.set_num_threads(2)
        path = save(network(chosen.model, paths), Path(place) / f"{chosen.model}.safetensors")
        predictor = Predictor(path)
        predictor.choose_engine(1)
        predictor.choose_engine()
        bodies = [path.read_bytes() for path in paths]
        expected = [
            (int(row.argmax()), float(row.max())) for body in bodies for row in [predict_alone(predictor, body)]
        ]
        engine = predictor.engine
        print(f"without HTTP: {engine.kind}, {engine.precision}, batches of {predictor.batch_size}")
        with run_server(path) as (port, process, line):
            print(f"{line}\n", flush=True)
            asyncio.run(measure(Client(port, bodies, expected), process, predictor, bodies, chosen))


if __name__ == "__main__":
    main()
