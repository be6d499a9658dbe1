"""Device, mixed precision and the processes that share a run, by accelerate."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch

from effnet.arch.serde import check_choice, import_extra
from effnet.runtime.torch import TORCH_DTYPES, select_device
from effnet.telemetry import disable_telemetry

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # ours and accelerate's name
TIMEOUT_MINUTES = 30  # for which a process waits for the others
MIN_BATCH_FOR_LOCAL_BATCH_NORM = 16  # images per device; below, batch norm is synchronized over all devices

T = TypeVar("T")
Prepared = tuple[torch.nn.Module, torch.optim.Optimizer]


class SingleProcess:
    """One device and no other process: enough for a training step that nobody shares."""

    rank, world_size = 0, 1

    def __init__(self, device: torch.device, precision: str = "float32") -> None:
        self.device, self.precision = device, precision

    def prepare(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch_size: int) -> Prepared:
        """Return the network to call in training, and its optimizer; ``batch_size`` is per device and forward pass."""
        return model, optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the network computes in this precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, TORCH_DTYPES[self.precision])

    def no_sync(self, model: torch.nn.Module) -> AbstractContextManager[Any]:
        """Return the context for all micro-batches but the last: gradients are not yet shared between processes."""
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def all_reduce_sum(self, number: float) -> float:
        """Return the sum of ``number`` over all processes."""
        return number

    def shard(self, items: list[T]) -> list[T]:
        """Return this process's share of ``items``; the shares of all processes are disjoint and complete."""
        return items[self.rank :: self.world_size]

    def gather(self, shard: list[T]) -> list[T]:
        """Return the shares of all processes, in the original order."""
        return shard


class Distributed(SingleProcess):
    """This process's device and its share of a run; ``torchrun`` starts several.

    ``precision`` is by default bfloat16 on a GPU that supports it, float16 on other GPUs, float32 on a CPU;
    ``find_unused_parameters`` where parts of the network are frozen in some epochs.
    """

    def __init__(
        self, device: str | None = None, precision: str | None = None, find_unused_parameters: bool = False
    ) -> None:
        chosen = select_device(device)
        super().__init__(chosen, precision or _fastest_precision(chosen))
        check_choice("precision", self.precision, tuple(PRECISIONS))
        if self.precision == "float16" and self.device.type == "cpu":
            raise ValueError("training in float16 is not supported on a CPU: choose bfloat16 or float32")
        self.accelerator = _make_accelerator(self.device, PRECISIONS[self.precision], find_unused_parameters)
        if self.accelerator.num_processes > 1:
            self.device = self.accelerator.device
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def prepare(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch_size: int) -> Prepared:
        """As in `SingleProcess`; small batches on several GPUs get synchronized batch norm."""
        if self.world_size > 1 and self.device.type == "cuda" and batch_size < MIN_BATCH_FOR_LOCAL_BATCH_NORM:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        on_device = [False, False]  # the network is on its device already
        wrapped, wrapped_optimizer = self.accelerator.prepare(model, optimizer, device_placement=on_device)
        # accelerate's mixed-precision wrapper of `forward` would stay in the network; `autocast` does the same
        vars(model).pop("forward", None)
        vars(model).pop("_original_forward", None)
        return wrapped, wrapped_optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """As in `SingleProcess`."""
        return self.accelerator.autocast() if self.precision != "float32" else nullcontext()

    def no_sync(self, model: torch.nn.Module) -> AbstractContextManager[Any]:
        """As in `SingleProcess`."""
        context: AbstractContextManager[Any] = self.accelerator.no_sync(model)
        return context

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients, scaled in float16."""
        self.accelerator.backward(loss)

    def all_reduce_sum(self, number: float) -> float:
        """As in `SingleProcess`."""
        if self.world_size == 1:
            return number
        summed = torch.tensor(number, device=self.device, dtype=torch.float64)
        return float(self.accelerator.reduce(summed, "sum"))

    def gather(self, shard: list[T]) -> list[T]:
        """As in `SingleProcess`."""
        if self.world_size == 1:
            return shard
        shares: list[list[T]] = [[]] * self.world_size
        torch.distributed.all_gather_object(shares, shard)
        items: list[T | None] = [None] * sum(map(len, shares))
        for rank, share in enumerate(shares):
            items[rank :: self.world_size] = share
        return items  # type: ignore[return-value]

    def broadcast(self, value: T) -> T:
        """Return the main process's ``value`` in all processes."""
        return self.run_on_main(lambda: value)

    def run_on_main(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the main process and return its result in all processes."""
        if self.world_size == 1:
            return function()
        values = [function() if self.is_main else None]
        torch.distributed.broadcast_object_list(values)
        return values[0]  # type: ignore[return-value]


def _make_accelerator(device: torch.device, precision: str, find_unused_parameters: bool) -> Any:
    disable_telemetry("accelerate")
    accelerate = import_extra("accelerate", "train", "training requires")
    accelerate.state.AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    return accelerate.Accelerator(
        mixed_precision=precision,
        cpu=device.type == "cpu",
        # Batch norm's buffers stay local: the main process's are evaluated and saved, as its moving average has them
        kwargs_handlers=[
            accelerate.utils.DistributedDataParallelKwargs(
                broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=find_unused_parameters
            ),
            accelerate.utils.InitProcessGroupKwargs(timeout=timedelta(minutes=TIMEOUT_MINUTES)),
        ],
    )


def _fastest_precision(device: torch.device) -> str:
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
