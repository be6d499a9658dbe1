"""What a search rates networks by: MnasNet's reward of accuracy and cost, and SynFlow before training."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch

from effnet.arch import Arch, count, serde
from effnet.net import create
from effnet.runtime.latency import Latency

COST_KINDS = ("macs", "params", "latency")
COST_UNITS = {"macs": "MACs", "params": "params", "latency": "s"}
REWARD_EXPONENT = -0.07  # twice the cost is worth about 5 % more accuracy (arXiv:1807.11626, section 3)
MAX_COST_FACTOR = 1.5  # times the target: more expensive networks would need 3 % more accuracy, and are not trained


def mnasnet_reward(accuracy: float, cost: float, target: float, exponent: float = REWARD_EXPONENT) -> float:
    """Return ACC × (cost / target)^w, equation 2 of arXiv:1807.11626, with the same w on both sides of the target."""
    serde.check_float("cost", cost, 0, exclusive=True)
    serde.check_float("target", target, 0, exclusive=True)
    return float(accuracy * (cost / target) ** exponent)


@dataclass(frozen=True)
class Reward:
    """The value by which a search ranks networks: their accuracy at exactly the ``target`` cost."""

    target: float
    cost: Callable[[Arch], float]

    def __call__(self, arch: Arch, accuracy: float) -> float:
        """Return `mnasnet_reward`."""
        return mnasnet_reward(accuracy, self.cost(arch), self.target)


def format_cost(cost: float, kind: str) -> str:
    """Return a cost with its unit: ``4.02 M MACs``, ``301 k params``, ``1.25 ms``."""
    if kind == "latency":
        return f"{cost * 1e3:.3g} ms"
    for size, letter in ((1e9, "G "), (1e6, "M "), (1e3, "k ")):
        if cost >= size:
            return f"{cost / size:.3g} {letter}{COST_UNITS[kind]}"
    return f"{cost:.0f} {COST_UNITS[kind]}"


@dataclass(frozen=True)
class CostFunction:
    """The cost of an architecture for one image: MACs, params, or seconds measured on this machine.

    Latency is on one thread by default, since the processes of a search measure side by side.
    """

    kind: str
    classes: int
    threads: int = 1

    def __post_init__(self) -> None:
        serde.check_choice("cost", self.kind, COST_KINDS)

    def __call__(self, arch: Arch) -> float:
        """Return the cost of ``arch``."""
        if self.kind == "latency":
            return Latency(self.threads, classes=self.classes)(arch)
        return float(getattr(count(arch, classes=self.classes), self.kind))


def synflow_score(arch: Arch, classes: int) -> float:
    """Return the logarithm of SynFlow for the untrained network (arXiv:2006.05467, equation 1, all weights positive).

    Σ |θ · ∂R/∂θ|: how much all weights together pass on from an image of ones to the outputs. It needs no data, and
    float64, since it grows by orders of magnitude with depth.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = create(arch, classes=classes).double().eval()
    with torch.no_grad():
        for value in model.parameters():
            value.abs_()
    ones = torch.ones(1, 3, arch.resolution, arch.resolution, dtype=torch.float64)
    with torch.enable_grad():
        model(ones).sum().backward()
    with torch.no_grad():
        total = sum(float((value * value.grad).abs().sum()) for value in model.parameters() if value.grad is not None)
    return log(max(total, 1e-300))
