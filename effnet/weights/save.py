"""From a network to a file, written beside its place and moved there when it is whole."""

from __future__ import annotations

import logging
from pathlib import Path

from effnet.arch.record import choice
from effnet.net import EfficientNet
from effnet.net.surgery import folded
from effnet.weights import formats
from effnet.weights.atomic import replacing
from effnet.weights.conversion import convert, counted
from effnet.weights.layouts import LAYOUTS

log = logging.getLogger("effnet")


def save(model: EfficientNet, path: str | Path, layout: str = "effnet") -> Path:
    """Writes ``model`` to ``path`` and returns it.

    "effnet": one ``.safetensors`` that carries its whole contract. Any other layout: the tensors under that ecosystem's
    names, in the format that the suffix means: ``.safetensors``, ``.pth`` and ``.pt`` for PyTorch's people; ``.h5``,
    ``.weights.h5`` and ``.keras``; ``.index``, with its ``.data-…`` beside it; ``.tflite``. "huggingface": where it is
    called as transformers' weights are, the two files that ``from_pretrained`` asks for are written beside it. An
    existing file stays whole until the new one is. Where the ecosystem's networks compute with other numerics than
    these weights expect, that is logged; `effnet.weights.transfer.transfer` compares the answers.
    Raises ``ValueError`` for a wrong suffix, a network that the ecosystem has not, or one whose batch norm was folded
    away; ``OSError`` where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    choice("layout", layout, tuple(LAYOUTS))
    allowed = LAYOUTS[layout].suffixes
    suffix = ".weights.h5" if path.name.endswith(".weights.h5") else path.suffix  # Keras tells the two apart
    if suffix not in allowed:
        raise ValueError(f"{path}: weights in {layout}'s layout are written to {' or '.join(allowed)}")
    if folded(model):
        raise ValueError("batch norm was folded into this copy: save the network that it was made from")
    kept = LAYOUTS[layout]
    if kept.fixed and kept.numerics(model.arch) != model.numerics:
        theirs, ours = kept.numerics(model.arch).in_words(), model.numerics.in_words()
        log.warning("%s: %s's network computes with %s, these weights expect %s", path.name, layout, theirs, ours)
    tensors = convert(counted(model.state_dict()), model.arch, "effnet", layout, model.numerics)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    companions = formats.companions(path, model, layout)
    with replacing(path) as beside:
        formats.write(beside, suffix, tensors, model, layout)
    for name, text in companions.items():
        with replacing(path.with_name(name)) as beside:
            beside.write_text(text, encoding="utf-8")
    return path
