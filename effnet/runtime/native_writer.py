"""Writing plans of the native engine: a network as a flat list of layers with their weights, by one walk over it."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from effnet.arch import Layer, layers
from effnet.net import EfficientNet, surgery
from effnet.runtime.native import PLAN_VERSION, Plan

KINDS = {"stem": 0, "mbconv": 1, "fused": 2, "head": 3, "classifier": 4}  # OpKind in native/src/plan.h


def write_plan(path: Path, model: EfficientNet) -> None:
    """Write ``model`` as a plan for any image size and any machine."""
    plan = build_plan(model)
    texts = {"plan": PLAN_VERSION, "effnet": plan.metadata_json, "checksum": plan.checksum}
    safetensors.numpy.save_file({"ops": plan.ops, "weights": plan.weights}, path, texts)


def build_plan(model: EfficientNet) -> Plan:
    """Return ``model`` as a plan, with batch norm folded."""
    folded = surgery.fold_batch_norm(model).float()
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in folded.state_dict().items()}
    ops, weights = [], []
    walk = list(layers(model.arch, model.classes, model.channels))
    for layer, following in zip(walk, [*walk[1:], None], strict=True):
        last = following is None or following.stage != layer.stage or layer.kind == "head"
        feature = layer.stage + 1 if last and layer.kind != "classifier" else 0
        ops.append(_op(layer, model, feature))
        weights += [np.ascontiguousarray(tensor, np.float32).ravel() for tensor in _tensors(layer, tensors)]
    return Plan(np.array(ops, np.int32), np.concatenate(weights), model.metadata.to_json())


def _op(layer: Layer, model: EfficientNet, feature: int) -> tuple[int, ...]:
    block = layer.kind in ("mbconv", "fused")
    expands = bool(layer.expanded) or (layer.kind == "fused" and layer.squeezed > 0)
    middle = (layer.expanded or (layer.inputs if layer.kind == "mbconv" else layer.channels)) if block else 0
    numerics = model.numerics
    same = ((layer.kind == "fused" and numerics.fused_padding) or numerics.padding) == "same"
    return (
        KINDS[layer.kind], layer.inputs, middle, layer.channels, layer.kernel, layer.stride, layer.squeezed,
        int(block and expands), int(layer.residual), int(same), feature, 0,
    )  # fmt: skip


def _tensors(layer: Layer, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return a layer's tensors in the order of native/src/plan.h; a kernel's last axis is its output channels."""

    def conv(name: str) -> list[np.ndarray]:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        # (out, in, k, k) -> (k, k, in, out)
        return [weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T, bias]

    name = layer.name
    match layer.kind:
        case "stem" | "head":
            return conv(f"{name}.conv")
        case "classifier":
            return conv(name)
    first = conv(f"{name}.fused.conv") if layer.kind == "fused" else conv(f"{name}.depthwise.conv")
    if layer.kind == "mbconv" and layer.expanded:
        first = conv(f"{name}.expand.conv") + first
    if layer.squeezed:
        first += conv(f"{name}.squeeze_excite.reduce") + conv(f"{name}.squeeze_excite.expand")
    if layer.kind == "mbconv" or layer.expanded:
        return first + conv(f"{name}.project.conv")
    if layer.squeezed:  # a fused block without projection that is squeezed: projected by the identity
        return [*first, np.eye(layer.channels), np.zeros(layer.channels)]
    return first
