"""Where training runs: one device, or one of several processes that share the work; in which precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from effnet.arch.serde import check_choice
from effnet.runtime.torch import select_device

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
TIMEOUT_MINUTES = 30  # that a process waits for the others before it gives up
MIN_BATCH_FOR_LOCAL_BATCH_NORM = 16  # pictures a device: with fewer, batch norm's statistics are taken over all devices

T = TypeVar("T")


class Distributed:
    """This process's device and its share of the work, by ``accelerate``; started by ``torchrun`` it is one of many.

    ``precision``: float32, bfloat16, float16, or None for what the device multiplies fastest: bfloat16 on a GPU that
    has it, float16 on one that has not, float32 on a CPU. ``partly``: parts of the network may be frozen for a while.
    Raises ``ValueError`` for one that the device has not.
    """

    def __init__(
        self, device: str | None = None, precision: str | None = None, find_unused_parameters: bool = False
    ) -> None:
        self.device = select_device(device)
        self.precision = precision or _fastest_precision(self.device)
        check_choice("precision", self.precision, tuple(PRECISIONS))
        if self.precision == "float16" and self.device.type == "cpu":
            raise ValueError("a CPU does not train in float16: take bfloat16 or float32")
        self._accelerator = _make_accelerator(self.device, PRECISIONS[self.precision], find_unused_parameters)
        if self._accelerator.num_processes > 1:
            self.device = self._accelerator.device
        self.rank, self.world_size = self._accelerator.process_index, self._accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and tells."""
        return bool(self.rank == 0)

    def prepare(self, model: nn.Module, optimizer: Optimizer, batch_size: int) -> tuple[nn.Module, Optimizer]:
        """The network to call in training, and its optimiser; ``batch``: pictures on this device at once."""
        if self.world_size > 1 and self.device.type == "cuda" and batch_size < MIN_BATCH_FOR_LOCAL_BATCH_NORM:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        here = [False, False]  # the network is on its device already
        called, moved = self._accelerator.prepare(model, optimizer, device_placement=here)
        # What accelerate puts around `forward` for other precisions would stay in the network; `numbers` does the same
        vars(model).pop("forward", None)
        vars(model).pop("_original_forward", None)
        return called, moved

    def backward(self, loss: Tensor) -> None:
        """Adds to the gradients, scaled where float16 needs it."""
        self._accelerator.backward(loss)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the network computes in this precision."""
        return self._accelerator.autocast() if self.precision != "float32" else nullcontext()

    def no_sync(self, model: nn.Module) -> AbstractContextManager[Any]:
        """The context in which gradients are not yet shared: for all parts of a batch but the last."""
        context: AbstractContextManager[Any] = self._accelerator.no_sync(model)
        return context

    def shard(self, items: list[T]) -> list[T]:
        """This process's share of ``of``: of all processes' shares none overlap, and nothing is left out."""
        return items[self.rank :: self.world_size]

    def gather(self, shard: list[T]) -> list[T]:
        """Every process's share put together again, in the order of the whole."""
        if self.world_size == 1:
            return shard
        from accelerate.utils import gather_object

        shares: list[list[T]] = gather_object([shard])
        whole: list[T | None] = [None] * sum(map(len, shares))
        for rank, share in enumerate(shares):
            whole[rank :: self.world_size] = share
        return whole  # type: ignore[return-value]

    def all_reduce_sum(self, number: float) -> float:
        """The sum of ``number`` over all processes."""
        if self.world_size == 1:
            return number
        summed: Tensor = self._accelerator.reduce(torch.tensor(number, device=self.device, dtype=torch.float64), "sum")
        return summed.item()

    def broadcast(self, value: T) -> T:
        """The first process's ``value``, in all of them."""
        return self.run_on_main(lambda: value)

    def run_on_main(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, in all of them; the others do not call it."""
        if self.world_size == 1:
            return make()
        from accelerate.utils import broadcast_object_list

        found: list[T] = broadcast_object_list([make() if self.is_main else None])
        return found[0]

    def free_memory(self) -> None:
        """Lets go of the networks and optimisers that `ready` was given."""
        self._accelerator.free_memory()

    def wait_for_everyone(self) -> None:
        """Until every process is here."""
        self._accelerator.wait_for_everyone()

    def scaler_state_dict(self) -> dict[str, Any]:
        """The state of float16's scaler, for a checkpoint; empty in other precisions."""
        scaler = self._accelerator.scaler
        return scaler.state_dict() if scaler else {}

    def load_scaler_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to what `scale` gave."""
        if self._accelerator.scaler and state:
            self._accelerator.scaler.load_state_dict(state)


def _make_accelerator(device: torch.device, precision: str, find_unused_parameters: bool) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    return Accelerator(
        mixed_precision=precision,
        cpu=device.type == "cpu",
        # Statistics stay each device's own: the first one's are what is judged and kept, as the average takes them
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=find_unused_parameters
            ),
            InitProcessGroupKwargs(timeout=timedelta(minutes=TIMEOUT_MINUTES)),
        ],
    )


def _fastest_precision(device: torch.device) -> str:
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
