"""Contestants that are no networks of ours: any module of convolutions through eager, onnxruntime and OpenVINO."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from effnet.bench.contestant import Contestant, Logits, as_logits
from effnet.bench.network import BRANCH, settle
from effnet.engines.engine import installed
from effnet.engines.openvino import the_core

OPSET = 17
SIDE = 224  # of the noise from which batch norm takes its statistics
LAST = "bn3"  # as torchvision and timm both call a bottleneck's last batch norm


def foreign(model: nn.Module, size: int, folder: Path) -> tuple[list[Contestant], Logits]:
    """``model`` with random weights, for one picture, through each engine that is installed; and what torch answers.

    It is set up as ours are: evaluation mode, batch norm with statistics of noise and folded into the convolutions,
    channels-last in torch. Pictures are normalised beforehand, which is in its favour. onnxruntime and OpenVINO read
    an ONNX file that is left in ``folder``, on one thread; torch on as many as it has. Changes ``model``: batch norm's
    statistics, and the gain of its residual branches.
    """
    for module in model.modules():
        last = getattr(module, LAST, None)
        if isinstance(last, nn.BatchNorm2d):  # as ours: or rounding grows from block to block, as in no trained network
            nn.init.constant_(last.weight, BRANCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settle(model, torch.randn(2, 3, *[min(size, SIDE)] * 2))
        x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        right = as_logits(model(x))
    path = str(folder / "network.onnx")  # a text: beside no other does torch leave the weights of more than 2 GiB
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter, and what tracing is not sure of
        # that exporter folds batch norm, and needs no further package
        torch.onnx.export(model, (x,), path, dynamo=False, input_names=["x"], output_names=["out"], opset_version=OPSET)
    folded = _folded(model)
    del model  # of a large network two copies would stay in memory
    found = [_eager(folded, x)]
    if "onnxruntime" in installed():
        found.append(_onnxruntime(path, x))
    if "openvino" in installed():
        found.append(_openvino(path, x))
    return found, right


def _folded(model: nn.Module) -> nn.Module:
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
                _fold_neighbours(each)
        return model
    return made


def _fold_neighbours(layers: nn.Sequential) -> None:
    for place, (conv, norm) in enumerate(pairwise(list(layers))):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[place], layers[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _eager(model: nn.Module, x: Tensor) -> Contestant:
    network = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    given = x.to(memory_format=torch.channels_last)

    def run() -> Logits:
        with torch.inference_mode():
            return as_logits(network(given))

    return Contestant("eager", "float32", run, run)


def _onnxruntime(path: str, x: Tensor) -> Contestant:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}

    def run() -> Logits:
        out: Logits = session.run(None, given)[0]
        return out

    return Contestant("onnxruntime", "float32", run, run)


def _openvino(path: str, x: Tensor) -> Contestant:
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = the_core().compile_model(path, "CPU", settings).create_infer_request()
    given = x.numpy()

    def run() -> Logits:
        request.infer([given], share_inputs=True)
        out: Logits = request.get_output_tensor(0).data.copy()
        return out

    return Contestant("openvino", "float32", run, run)
