"""The HTTP server: throughput relative to prediction without HTTP, latency at half load, memory, wrong responses.

    python benchmarks/serving.py PHOTOS [--model b0] [--requests 2000] [--rounds 3] [--memory-requests 10000]

PHOTOS is a folder of images, each sent unchanged as a raw body. The server is ``effnet serve`` with default options in
its own process; the client is this process, which uses bare sockets and requests built beforehand, since it runs on the
same cores. "without HTTP" passes the same bytes to `Predictor.predict_scores`, which decodes in threads ahead of the
network and uses the best batch size. Rounds are interleaved, with the engines options beforehand. Every response is
compared with the prediction of its image alone. Half load sends half as many requests per second as were answered at
full load, at random times (Poisson) and evenly spaced; latency counts from the time at which a request was due. Memory
is the resident size of the server.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fixtures import EFFNET_COMMAND, create_calibrated, describe_setup, find_photos, resident_mib

from effnet.data.image_io import load_input
from effnet.prediction import Predictor
from effnet.timing import Stopwatch
from effnet.weights import save

CONCURRENCY = 16
WARMUP_REQUESTS = 300
TOLERANCE = 1e-4  # of a probability: the order of additions depends on the batch size


class Client:
    """Keep-alive connections to the server. ``expected``: (class index, probability) of each body."""

    def __init__(self, port: int, bodies: list[bytes], expected: list[tuple[int, float]]) -> None:
        head = "POST /v1/predict?top=1 HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n\r\n"
        self.requests = [head.format(len(body)).encode() + body for body in bodies]
        self.port, self.expected = port, expected
        self.idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
        self.errors: list[str] = []
        self.batch_sizes: list[int] = []

    async def request(self, number: int) -> None:
        """Send image ``number`` (modulo the number of images) and check the response."""
        if self.idle.empty():
            self.idle.put_nowait(await asyncio.open_connection("127.0.0.1", self.port))
        reader, writer = await self.idle.get()
        index = number % len(self.requests)
        writer.write(self.requests[index])
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        body = await reader.readexactly(int(length[1]))
        self.idle.put_nowait((reader, writer))
        if not head.startswith(b"HTTP/1.1 200 "):
            self.errors.append(body.decode())
            return
        response = json.loads(body)
        expected_class, probability = self.expected[index]
        top1 = response["labels"][0]
        self.batch_sizes.append(response["batch_size"])
        if top1["index"] != expected_class or abs(top1["probability"] - probability) > TOLERANCE:
            self.errors.append(f"image {index}: {top1}, expected class {expected_class}, {probability}")

    def reconnect(self) -> None:
        """Close all connections, since the server closes those that have been idle for a while."""
        while not self.idle.empty():
            self.idle.get_nowait()[1].close()

    async def run_closed_loop(self, count: int) -> float:
        """Return the seconds that ``count`` requests take, `CONCURRENCY` at a time."""
        self.reconnect()
        numbers, watch = iter(range(count)), Stopwatch()

        async def worker() -> None:
            for number in numbers:
                await self.request(number)

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return watch.seconds

    async def run_sequentially(self, count: int) -> list[float]:
        """Return the latency of each of ``count`` sequential requests, in seconds."""
        self.reconnect()
        latencies = []
        for number in range(count):
            watch = Stopwatch()
            await self.request(number)
            latencies.append(watch.seconds)
        return latencies

    async def run_open_loop(self, count: int, rate: float, even: bool) -> list[float]:
        """Return the latency of each of ``count`` requests sent at ``rate`` per second, in seconds."""
        self.reconnect()
        rng, watch = random.Random(0), Stopwatch()
        due, latencies = 0.0, []

        async def send(number: int, due: float) -> None:
            await self.request(number)
            latencies.append(watch.seconds - due)

        tasks = []
        for number in range(count):
            due += 1 / rate if even else rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - watch.seconds))
            tasks.append(asyncio.create_task(send(number, due)))
        await asyncio.gather(*tasks)
        return latencies


@contextmanager
def start_server(model: Path) -> Iterator[tuple[int, int, str]]:
    """Start a server; yield its port, its process id and its startup message."""
    command = [*EFFNET_COMMAND, "serve", str(model), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
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


def predict_alone(predictor: Predictor, body: bytes) -> np.ndarray:
    """Return the probabilities of one image at batch size 1."""
    return predictor.compute(load_input(body, predictor.input_preprocess)[None], batch_size=1)[0]


def time_without_http(predictor: Predictor, bodies: list[bytes], count: int) -> float:
    """Return the seconds that decoding and predicting ``count`` images takes."""
    watch = Stopwatch()
    images = ((str(number), bodies[number % len(bodies)]) for number in range(count))
    assert sum(1 for _ in predictor.predict_scores(images)) == count
    return watch.seconds


async def measure(
    client: Client, process: int, predictor: Predictor, bodies: list[bytes], options: argparse.Namespace
) -> None:
    """Print the tables."""
    await client.run_closed_loop(WARMUP_REQUESTS)
    time_without_http(predictor, bodies, WARMUP_REQUESTS)
    throughput: dict[str, list[float]] = {"without HTTP": [], "served": []}
    client.batch_sizes.clear()
    for _ in range(options.rounds):
        throughput["without HTTP"].append(options.requests / time_without_http(predictor, bodies, options.requests))
        throughput["served"].append(options.requests / await client.run_closed_loop(options.requests))
    print(f"| {CONCURRENCY} concurrent requests | images per second | min … max |\n|---|--:|--:|")
    for name, values in throughput.items():
        print(f"| {name} | {np.median(values):.1f} | {min(values):.1f} … {max(values):.1f} |")
    ratio = np.median(
        [served / bare for served, bare in zip(throughput["served"], throughput["without HTTP"], strict=True)]
    )
    print(
        f"\nserved / without HTTP: {ratio:.3f}; batch size {np.mean(client.batch_sizes):.1f} on average\n", flush=True
    )

    latencies = await client.run_sequentially(min(300, options.requests))
    single, rate = float(np.median(latencies)), float(np.median(throughput["served"])) / 2
    print(f"sequential requests: median {1e3 * single:.1f} ms, p99 {1e3 * np.quantile(latencies, 0.99):.1f} ms\n")
    print("| half load | requests per second | median ms | p99 ms | p99 / sequential median |\n|---|--:|--:|--:|--:|")
    for name, even in (("at random times", False), ("evenly spaced", True)):
        latencies = await client.run_open_loop(options.requests, rate, even)
        median, p99 = np.quantile(latencies, (0.5, 0.99))
        print(f"| {name} | {rate:.0f} | {1e3 * median:.1f} | {1e3 * p99:.1f} | {p99 / single:.2f} |", flush=True)

    print(f"\n| requests | server, MiB |\n|--:|--:|\n| 0 | {resident_mib(process):.1f} |")
    for part in range(10):
        await client.run_closed_loop(options.memory_requests // 10)
        print(f"| {(part + 1) * (options.memory_requests // 10)} | {resident_mib(process):.1f} |", flush=True)
    print(f"\nwrong or failed responses: {len(client.errors)}{client.errors[:3] or ''}")


def main() -> None:
    """Run the server and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="b0")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-requests", type=int, default=10_000)
    options = parser.parse_args()
    paths = find_photos(options.photos)
    print(f"{describe_setup('torch', 'pillow', 'onnxruntime', 'openvino', 'fastapi', 'uvicorn')}\n")
    with TemporaryDirectory() as temporary:
        os.environ["EFFNET_HOME"] = f"{temporary}/home"
        torch.set_num_threads(2)
        path = save(create_calibrated(options.model, paths), Path(temporary) / f"{options.model}.safetensors")
        predictor = Predictor(path)
        predictor.choose_engine(1)
        predictor.choose_engine()
        bodies = [path.read_bytes() for path in paths]
        alone = [predict_alone(predictor, body) for body in bodies]
        expected = [(int(row.argmax()), float(row.max())) for row in alone]
        engine = predictor.engine
        print(f"without HTTP: {engine.kind}, {engine.precision}, batch size {predictor.batch_size}")
        with start_server(path) as (port, process, message):
            print(f"{message}\n", flush=True)
            asyncio.run(measure(Client(port, bodies, expected), process, predictor, bodies, options))


if __name__ == "__main__":
    main()
