"""The same on a Ray cluster, through Ray Data: chunks go out, parts come back, those of lost workers go out again."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from effnet.data.storage.remote import is_remote
from effnet.prediction.bulk_chunks import Chunk, PartialResult, predict_parts
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.predictor import Predictor

_MAX_CHUNKS_SUBMITTED = (
    4096  # chunks, a million pictures, that Ray is told of at once: the listing may be longer than memory
)
PredictorFactory = Callable[[], Predictor | Ensemble]


class _RayWorker:
    """An actor: a predictor that takes chunks."""

    def __init__(self, make_predictor: PredictorFactory, top: int, folder: str) -> None:
        with suppress(OSError):  # names may be relative to where the command was given; addresses do not need it
            os.chdir(folder)
        self.predictor, self.top = make_predictor(), top

    def __call__(self, batch: dict[str, list[bytes]]) -> Iterator[dict[str, list[bytes]]]:
        """Pickled (chunk, parts that are there, a file of it) -> pickled parts, each as soon as it is done."""
        given: list[tuple[Chunk, int, str | None]] = [pickle.loads(one) for one in batch["chunk"]]
        for _, _, seen in given:
            if seen is not None and not os.path.lexists(seen):
                raise OSError(
                    f"{seen} is not to be seen from every node of the cluster: put the pictures where all nodes find "
                    "them under the same path, or into a store (s3://…)"
                )
        for part in predict_parts(self.predictor, ((chunk, done) for chunk, done, _ in given), self.top):
            yield {"part": [pickle.dumps(part)]}


def predict_on_cluster(
    address: str, make_predictor: PredictorFactory, pending: Iterable[tuple[Chunk, int]], top: int
) -> Iterator[PartialResult]:
    """The parts of all ``waiting`` (chunk, parts of it that are there already), in any order, made on a Ray cluster.

    ``address``: "local" for a cluster of this machine, "auto" for the one it belongs to, "ray://host:10001", …. An
    actor a processor, or a GPU where the cluster has some, holds what ``make`` makes. An actor that is lost is started
    again, and its chunks given out again; a part may then come twice, and is the same picture for picture. Raises
    ``ImportError`` without ray, ``OSError`` where the cluster is out of reach, and what the work itself raised.
    """
    coming = iter(pending)
    with _connect(address) as ray:
        from ray.data import ActorPoolStrategy

        gpus, processors = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        needs: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        while window := list(islice(coming, _MAX_CHUNKS_SUBMITTED)):
            pool = ActorPoolStrategy(min_size=1, max_size=max(1, min(gpus or processors, len(window))))
            items = [{"chunk": pickle.dumps((chunk, done, _local_file(chunk)))} for chunk, done in window]
            dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                _RayWorker, fn_constructor_args=(make_predictor, top, os.getcwd()), compute=pool, batch_size=1, **needs
            )
            dataset.context.target_max_block_size = 1  # each part at once, not the 128 MiB of them
            dataset.context.enable_progress_bars = False
            try:
                for row in dataset.iter_rows():
                    part: PartialResult = pickle.loads(row["part"])
                    yield part
            except (ray.exceptions.RayError, RuntimeError) as error:
                raise _root_cause(error) from error


@contextmanager
def _connect(address: str) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ImportError('--ray needs ray, which is not here: pip install "effnet[ray]"') from None
    if ray.is_initialized():
        yield ray
        return
    try:
        dashboard = False if address == "local" else None
        ray.init(address, log_to_driver=False, logging_level=logging.WARNING, include_dashboard=dashboard)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OSError(f"no Ray cluster answers at {address} ({' '.join(str(error).split())[:200]})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _local_file(chunk: Chunk) -> str | None:
    """A file of the chunk that is here, and must be on whichever node reads it."""
    return next((name for name in chunk.names if not is_remote(name) and os.path.lexists(name)), None)


def _root_cause(error: BaseException) -> BaseException:
    """What the work raised, below what Ray wraps around it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, (ValueError, OSError, ImportError, MemoryError)) and not type(inner).__module__.startswith(
            "ray"
        ):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return OSError(f"Ray has given up: {' '.join(str(error).split())[:300]}; start the same command again to go on")
