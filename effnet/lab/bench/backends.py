"""What takes part in a contest: a network and a way to run it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from effnet.arch import ARCHS, Arch
from effnet.data.preprocessing import normalize
from effnet.data.torchvision_compat import declare_operators
from effnet.net import EfficientNet
from effnet.runtime.autotune import engine
from effnet.runtime.base import installed_engines
from effnet.runtime.latency import RESIDUAL_GAIN, set_batch_norm_statistics
from effnet.runtime.openvino import get_core
from effnet.weights import convert

ImageBatch = NDArray[np.uint8]


Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Backend:
    """``run`` does the work that is timed; ``logits`` says what came of it, as float32 (N, classes)."""

    engine: str
    precision: str
    run: Callable[[], object]
    logits: Callable[[], Logits]
    same_network: bool = True  # whether it computes the very network that it is compared with

    @property
    def name(self) -> str:
        """Unlike every other in its contest."""
        return f"{self.engine}, {self.precision}"


def random_images(batch_size: int, size: tuple[int, int], channels: int = 3) -> ImageBatch:
    """Noise as pictures come: uint8 (batch, height, width, channels)."""
    made: ImageBatch = np.random.default_rng(0).integers(0, 256, (batch_size, *size, channels), np.uint8)
    return made


def reference_logits(model: EfficientNet, images: ImageBatch) -> Logits:
    """What torch answers in float32, with nothing folded: (N, classes)."""
    with torch.inference_mode():
        return to_logits(model.eval()(normalize(torch.from_numpy(images), model.preprocess)))


def to_logits(answer: torch.Tensor) -> Logits:
    """Any tensor as float32 numpy."""
    made: Logits = answer.float().cpu().numpy()
    return made


def max_relative_difference(logits: Logits, expected: Logits) -> float:
    """The largest difference, over the largest of the right ones."""
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


# Our own contestants: a network through each engine, from pictures to logits.


def engine_backend(model: EfficientNet, kind: str, precision: str, images: ImageBatch, threads: int) -> Backend:
    """``model`` through the engine ``kind``, from the pictures ``seen`` as they come: normalising is timed too.

    Raises ``ValueError`` or ``ImportError`` where the engine cannot do this here.
    """
    batch, height, width, _ = images.shape
    made = engine(model, kind, batch, (height, width), precision, threads)
    return Backend(made.kind, made.precision, lambda: made.run(images), lambda: made.run(images))


# The peers' contestants: timm's and torchvision's networks, each set up as those who know them would.


PEERS = ("timm", "torchvision")


ForwardFunction = Callable[[Tensor], Tensor]


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def installed_peers() -> tuple[str, ...]:
    """The peers whose packages are here."""
    return tuple(name for name in PEERS if find_spec(name))


def peer_backends(
    model: EfficientNet,
    peer: str,
    precision: str,
    images: ImageBatch,
    variants: tuple[str, ...] = ("channels-last", "contiguous"),
) -> list[Backend]:
    """The network of ``peer`` with the numbers of ``model``, for the pictures ``seen``; none where it has none such.

    Evaluation mode, inference mode, and each of ``ways``: "channels-last", "contiguous" (torch's default memory format)
    and "compiled" (channels-last through torch.compile). Normalising is done beforehand and not timed.
    Raises ``ImportError`` where ``peer`` is not installed.
    """
    if not find_spec(peer):
        raise ImportError(f"{peer} is not installed here: pip install {peer}, or go without: --against none")
    declare_operators()
    built = (
        (_create_timm_network if peer == "timm" else _create_torchvision_network)(model)
        if precision in DTYPES
        else None
    )
    if built is None:
        return []
    same = peer == "timm" or (model.numerics.padding, model.numerics.fused_padding) == ("symmetric", "")
    normalised = normalize(torch.from_numpy(images), model.preprocess).to(DTYPES[precision])
    found = []
    for name in variants:
        layout = torch.contiguous_format if name == "contiguous" else torch.channels_last
        network = deepcopy(built).eval().to(dtype=DTYPES[precision], memory_format=layout)  # type: ignore[call-overload]
        call: ForwardFunction = torch.compile(network) if name == "compiled" else network
        run = partial(_infer, call, normalised.contiguous(memory_format=layout))
        found.append(Backend(f"{peer} {name}", precision, run, partial(_infer_logits, run), same))
    return found


def _infer(network: ForwardFunction, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(x)


def _infer_logits(run: Callable[[], Tensor]) -> Logits:
    return to_logits(run())


def _create_timm_network(model: EfficientNet) -> nn.Module | None:
    import timm

    name = _published_name(model.arch)
    if not name:
        return None
    if name.startswith("v2_"):
        theirs = f"efficientnetv2_{name.removeprefix('v2_')}"
    else:
        theirs = f"efficientnet_{name.replace('edge_', 'e')}"
    numerics = model.numerics
    sizes: dict[str, Any] = {"num_classes": model.classes, "in_chans": model.channels}
    if numerics.padding == "symmetric" and theirs in timm.list_models():
        built = timm.create_model(theirs, **sizes)
    else:
        padding: dict[str, Any] = {} if numerics.padding == "same" else {"pad_type": "", "bn_eps": numerics.bn_eps}
        built = timm.create_model(f"tf_{theirs}", **padding, **sizes)
    return _load_weights(built, model, "timm")


def _create_torchvision_network(model: EfficientNet) -> nn.Module | None:
    import torchvision

    name = _published_name(model.arch)
    theirs = f"efficientnet_{name}" if name else ""
    if theirs not in torchvision.models.list_models() or model.channels != 3 or not model.classes:
        return None
    built = getattr(torchvision.models, theirs)(num_classes=model.classes)
    return _load_weights(built, model, "torchvision")


def _published_name(arch: Arch) -> str:
    """The name of a published arch; "" for one that was scaled or changed."""
    return next((name for name, known in ARCHS.items() if known == arch and name != "nano"), "")


def _load_weights(built: nn.Module, model: EfficientNet, layout: str) -> nn.Module:
    """``built`` with the numbers, and the ε, of ``model``."""
    theirs = convert(model.state_dict(), model.arch, "effnet", layout)
    missing = built.load_state_dict(theirs, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = model.numerics.bn_eps
    return built


# Contestants that are no networks of ours: any module of convolutions through eager, onnxruntime and OpenVINO.


ONNX_OPSET = 17


NOISE_SIZE = 224  # of the noise from which batch norm takes its statistics


LAST_BATCH_NORM = "bn3"  # as torchvision and timm both call a bottleneck's last batch norm


def module_backends(model: nn.Module, size: int, folder: Path) -> tuple[list[Backend], Logits]:
    """``model`` with random weights, for one picture, through each engine that is installed; and what torch answers.

    It is set up as ours are: evaluation mode, batch norm with statistics of noise and folded into the convolutions,
    channels-last in torch. Pictures are normalised beforehand, which is in its favour. onnxruntime and OpenVINO read
    an ONNX file that is left in ``folder``, on one thread; torch on as many as it has. Changes ``model``: batch norm's
    statistics, and the gain of its residual branches.
    """
    for module in model.modules():
        last = getattr(module, LAST_BATCH_NORM, None)
        if isinstance(last, nn.BatchNorm2d):  # as ours: or rounding grows from block to block, as in no trained network
            nn.init.constant_(last.weight, RESIDUAL_GAIN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        set_batch_norm_statistics(model, torch.randn(2, 3, *[min(size, NOISE_SIZE)] * 2))
        x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        right = to_logits(model(x))
    path = str(folder / "network.onnx")  # a text: beside no other does torch leave the weights of more than 2 GiB
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter, and what tracing is not sure of
        # that exporter folds batch norm, and needs no further package
        torch.onnx.export(
            model, (x,), path, dynamo=False, input_names=["x"], output_names=["out"], opset_version=ONNX_OPSET
        )
    folded = _fold_batch_norms(model)
    del model  # of a large network two copies would stay in memory
    found = [_eager_backend(folded, x)]
    if "onnxruntime" in installed_engines():
        found.append(_onnxruntime_backend(path, x))
    if "openvino" in installed_engines():
        found.append(_openvino_backend(path, x))
    return found, right


def _fold_batch_norms(model: nn.Module) -> nn.Module:
    """With batch norm in the convolutions; where torch cannot trace it, those that follow one in a `Sequential`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what torch itself uses there
        from torch.fx.experimental.optimization import fuse
        from torch.fx.proxy import TraceError
    try:
        made: nn.Module = fuse(model)
    except TraceError:
        for each in list(model.modules()):
            if isinstance(each, nn.Sequential):
                _fold_sequential(each)
        return model
    return made


def _fold_sequential(layers: nn.Sequential) -> None:
    for place, (conv, norm) in enumerate(pairwise(list(layers))):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[place], layers[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _eager_backend(model: nn.Module, x: Tensor) -> Backend:
    network = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    given = x.to(memory_format=torch.channels_last)

    def run() -> Logits:
        with torch.inference_mode():
            return to_logits(network(given))

    return Backend("eager", "float32", run, run)


def _onnxruntime_backend(path: str, x: Tensor) -> Backend:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}

    def run() -> Logits:
        out: Logits = session.run(None, given)[0]
        return out

    return Backend("onnxruntime", "float32", run, run)


def _openvino_backend(path: str, x: Tensor) -> Backend:
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = get_core().compile_model(path, "CPU", settings).create_infer_request()
    given = x.numpy()

    def run() -> Logits:
        request.infer([given], share_inputs=True)
        out: Logits = request.get_output_tensor(0).data.copy()
        return out

    return Backend("openvino", "float32", run, run)
