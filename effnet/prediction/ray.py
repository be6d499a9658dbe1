"""Bulk prediction on a Ray cluster, through Ray Data: chunks are sent out, and those of lost workers again."""

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from effnet.arch.serde import import_extra
from effnet.data.storage.remote import is_remote
from effnet.prediction.bulk_chunks import Chunk, PartialResult, PredictorFactory, predict_parts
from effnet.telemetry import disable_telemetry

# Chunks submitted at once, about a million images: the listing may be larger than memory
_MAX_CHUNKS_SUBMITTED = 4096


# The pickles are those of this program, within the cluster, which runs its user's code anyway
class _RayWorker:
    def __init__(self, make_predictor: PredictorFactory, top: int, folder: str) -> None:
        with suppress(OSError):  # names may be relative to the driver's directory; URLs do not need it
            os.chdir(folder)
        self.predictor, self.top = make_predictor(), top

    def __call__(self, batch: dict[str, list[bytes]]) -> Iterator[dict[str, list[bytes]]]:
        """Pickled (chunk, number of its finished parts, one of its files) -> pickled parts, each when it is done."""
        tasks: list[tuple[Chunk, int, str | None]] = [pickle.loads(task) for task in batch["chunk"]]  # nosec B301
        for _, _, file in tasks:
            if file is not None and not os.path.lexists(file):
                raise OSError(
                    f"{file} is not visible from every node of the cluster: put the images where all nodes see them "
                    "under the same path, or into a store (s3://…)"
                )
        for part in predict_parts(self.predictor, ((chunk, done) for chunk, done, _ in tasks), self.top):
            yield {"part": [pickle.dumps(part)]}


def predict_on_cluster(
    address: str, make_predictor: PredictorFactory, pending: Iterable[tuple[Chunk, int]], top: int
) -> Iterator[PartialResult]:
    """Yield the missing parts of chunks, in any order, predicted on a Ray cluster.

    One actor per CPU core, or per GPU if the cluster has any, holds a predictor. A lost actor is restarted and its
    chunks are sent out again; a part may then come twice, with the same rows. ``pending`` are pairs (chunk, number of
    its finished parts); ``address`` is "local" for a cluster on this machine, "auto" for the one it belongs to, or
    "ray://host:10001".
    """
    remaining = iter(pending)
    with _connect(address) as ray:
        from ray.data import ActorPoolStrategy

        gpus, cores = (int(ray.cluster_resources().get(resource, 0)) for resource in ("GPU", "CPU"))
        needs: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        while window := list(islice(remaining, _MAX_CHUNKS_SUBMITTED)):
            pool = ActorPoolStrategy(min_size=1, max_size=max(1, min(gpus or cores, len(window))))
            items = []
            for chunk, done in window:
                file = next((name for name in chunk.names if not is_remote(name) and os.path.lexists(name)), None)
                items.append({"chunk": pickle.dumps((chunk, done, file))})
            dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                _RayWorker, fn_constructor_args=(make_predictor, top, os.getcwd()), compute=pool, batch_size=1, **needs
            )
            dataset.context.target_max_block_size = 1  # return each part at once, not 128 MiB of them
            dataset.context.enable_progress_bars = False
            try:
                for row in dataset.iter_rows():
                    part: PartialResult = pickle.loads(row["part"])  # nosec B301
                    yield part
            except (ray.exceptions.RayError, RuntimeError) as error:
                raise _root_cause(error) from error


@contextmanager
def _connect(address: str) -> Iterator[Any]:
    disable_telemetry("ray")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = import_extra("ray", "ray", "--ray requires")
    import_extra("ray.data", "ray", "--ray requires", "ray")
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


def _root_cause(error: BaseException) -> BaseException:
    """Return the error that the worker raised, without what Ray wraps around it."""
    cause: BaseException | None = error
    while cause is not None:
        ours = isinstance(cause, (ValueError, OSError, ImportError, MemoryError))
        if ours and not type(cause).__module__.startswith("ray"):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return OSError(f"Ray failed: {' '.join(str(error).split())[:300]}; run the same command again to resume")
