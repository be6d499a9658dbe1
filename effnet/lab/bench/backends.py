"""What a benchmark compares: our engines, timm's and torchvision's networks, and any other torch module."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effnet.arch import ARCHS, serde
from effnet.data import preprocessing, torchvision_compat
from effnet.net import EfficientNet
from effnet.runtime import autotune, base, latency, onnxruntime, openvino
from effnet.weights import convert

PEERS = ("timm", "torchvision")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NOISE_SIZE = 224  # of the noise that foreign networks take their batch norm statistics from

ImageBatch = NDArray[np.uint8]
Logits = NDArray[np.float32]
ForwardFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Backend:
    """A network and a way to run it: ``run`` is timed, and returns logits (N, classes) in the engine's own type."""

    engine: str
    precision: str
    run: Callable[[], Tensor | Logits]
    same_network: bool = True  # whether it computes the very network that it is compared with

    @property
    def name(self) -> str:
        """A name unique within a comparison."""
        return f"{self.engine}, {self.precision}"

    def logits(self) -> Logits:
        """Run it and return float32 (N, classes)."""
        out = self.run()
        return to_logits(out) if isinstance(out, Tensor) else out


def random_images(batch_size: int, size: tuple[int, int], channels: int = 3) -> ImageBatch:
    """Return noise as uint8 (batch, height, width, channels)."""
    return np.random.default_rng(0).integers(0, 256, (batch_size, *size, channels), np.uint8)


def reference_logits(model: EfficientNet, images: ImageBatch) -> Logits:
    """Return torch's own float32 logits, with batch norm unfolded: (N, classes)."""
    with torch.inference_mode():
        return to_logits(model.eval()(preprocessing.normalize(torch.from_numpy(images), model.preprocess)))


def to_logits(output: Tensor) -> Logits:
    """Return logits as float32 numpy."""
    logits: Logits = output.float().cpu().numpy()
    return logits


def engine_backend(model: EfficientNet, kind: str, precision: str, images: ImageBatch, threads: int) -> Backend:
    """Return ``model`` in the engine ``kind``, from uint8 images; normalization is timed too."""
    batch_size, height, width, _ = images.shape
    engine = autotune.engine(model, kind, batch_size, (height, width), precision, threads)
    return Backend(engine.kind, engine.precision, partial(engine.run, images))


def peer_backends(
    model: EfficientNet, peer: str, precision: str, images: ImageBatch, variants: tuple[str, ...]
) -> list[Backend]:
    """Return the network of ``peer`` with the weights of ``model``, as its users would set it up; [] if it has none.

    Variants: "channels-last", "contiguous", and "compiled" in channels-last. Images are normalized in advance, which is
    not timed. Raises ``ImportError`` without ``peer``.
    """
    torchvision_compat.declare_operators()  # before torchvision is imported, by timm too
    serde.import_extra(peer, "peers", f"a comparison with {peer} requires")
    network = _create_peer_network(peer, model) if precision in DTYPES else None
    if network is None:
        return []
    numerics = model.numerics
    same_network = peer == "timm" or (numerics.padding, numerics.fused_padding) == ("symmetric", "")
    dtype = DTYPES[precision]
    inputs = preprocessing.normalize(torch.from_numpy(images), model.preprocess).to(dtype)
    backends = []
    for variant in variants:
        memory_format = torch.contiguous_format if variant == "contiguous" else torch.channels_last
        module = deepcopy(network).eval().to(dtype=dtype, memory_format=memory_format)  # type: ignore[call-overload]
        forward: ForwardFunction = torch.compile(module) if variant == "compiled" else module
        run = partial(_infer, forward, inputs.contiguous(memory_format=memory_format))
        backends.append(Backend(f"{peer} {variant}", precision, run, same_network))
    return backends


def _infer(forward: ForwardFunction, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return forward(x)


def _create_peer_network(peer: str, model: EfficientNet) -> nn.Module | None:
    """Return the network of ``peer`` with the weights of ``model``; None if it has none: ours is scaled or changed."""
    name = next((name for name, known in ARCHS.items() if known == model.arch and name != "nano"), "")
    if not name:
        return None
    network: nn.Module
    if peer == "timm":
        import timm

        timm_name = f"efficientnet_{name.replace('edge_', 'e')}".replace("efficientnet_v2", "efficientnetv2")
        numerics = model.numerics
        options: dict[str, Any] = {"num_classes": model.classes, "in_chans": model.channels}
        if numerics.padding != "symmetric" or timm_name not in timm.list_models():
            timm_name = f"tf_{timm_name}"
            options |= {} if numerics.padding == "same" else {"pad_type": "", "bn_eps": numerics.bn_eps}
        network = timm.create_model(timm_name, **options)
    else:
        from torchvision import models

        builder = f"efficientnet_{name}"
        if builder not in models.list_models() or model.channels != 3 or not model.classes:
            return None
        network = getattr(models, builder)(num_classes=model.classes)
    mismatch = network.load_state_dict(convert(model.state_dict(), model.arch, "effnet", peer), strict=False)
    assert not mismatch.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in mismatch.missing_keys)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = model.numerics.bn_eps
    return network


def module_backends(model: nn.Module, size: int, folder: Path) -> tuple[list[Backend], Logits]:
    """Return any network with random weights, for one image, in each installed engine; and torch's own logits.

    It is set up like ours, on one thread: batch norm with the statistics of noise (which changes ``model``) and folded,
    channels-last in torch, else an ONNX file in ``folder``. Images are normalized in advance, which favors it.
    """
    for module in model.modules():
        last = getattr(module, "bn3", None)  # of a bottleneck, in torchvision and timm
        if isinstance(last, nn.BatchNorm2d):  # as ours, or rounding errors grow as in no trained network
            nn.init.constant_(last.weight, latency.RESIDUAL_GAIN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        latency.set_batch_norm_statistics(model, torch.randn(2, 3, *[min(size, NOISE_SIZE)] * 2))
        x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        expected = to_logits(model(x))
    path = str(folder / "network.onnx")  # a str: only then does torch export the weights of more than 2 GiB
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter, and what tracing is not sure of
        # The older exporter folds batch norm, and needs no other package
        torch.onnx.export(model, (x,), path, dynamo=False, input_names=["x"], output_names=["out"], opset_version=17)
    folded = _fold_batch_norms(model)
    del model  # two copies of a large network would stay in memory
    network = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    backends = [Backend("eager", "float32", partial(_infer, network, x.to(memory_format=torch.channels_last)))]
    pixels = x.numpy()
    if "onnxruntime" in base.installed_engines():
        session = onnxruntime.open_session(Path(path), 1)
        backends.append(Backend("onnxruntime", "float32", lambda: session.run(None, {"x": pixels})[0]))
    if "openvino" in base.installed_engines():
        compiled = openvino.get_core().compile_model(path, "CPU", openvino.compile_settings("float32", 1))
        request = compiled.create_infer_request()

        def run_openvino() -> Any:
            request.infer([pixels], share_inputs=True)
            return request.get_output_tensor(0).data.copy()

        backends.append(Backend("openvino", "float32", run_openvino))
    return backends, expected


def _fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold batch norm into convolutions; if torch cannot trace the model, only within each `Sequential`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from torch's own code
        from torch.fx.experimental.optimization import fuse
        from torch.fx.proxy import TraceError
    try:
        folded: nn.Module = fuse(model)
    except TraceError:
        for layers in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
            for index, (conv, norm) in enumerate(pairwise(list(layers))):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    layers[index], layers[index + 1] = nn.utils.fuse_conv_bn_eval(conv, norm), nn.Identity()
        return model
    return folded
