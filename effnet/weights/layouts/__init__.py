"""One file an ecosystem: how its tensors are called, and what its networks compute with."""

from __future__ import annotations

from effnet.arch import Arch, tensors
from effnet.weights import official
from effnet.weights.layouts import huggingface, keras, lukemelas, tensorflow, tflite, timm, torchvision
from effnet.weights.layouts.rows import HWIO, OHWI, Layout


def _own(arch: Arch, classes: int = 1000) -> dict[str, str]:
    return {name: name for name in tensors(arch, classes)}


LAYOUTS: dict[str, Layout] = {
    "effnet": Layout(_own, suffixes=(".safetensors",)),
    "timm": Layout(timm.names),
    "torchvision": Layout(
        torchvision.names,
        archs=torchvision.ARCHS,
        numerics=torchvision.numerics,
        preprocess=official.torchvision_preprocess,
        fixed=True,
    ),
    "lukemelas": Layout(lukemelas.names, archs=lukemelas.ARCHS, preprocess=official.lukemelas_preprocess, fixed=True),
    "huggingface": Layout(
        huggingface.names,
        archs=huggingface.ARCHS,
        preprocess=official.huggingface_preprocess,
        fixed=True,
        tidy=huggingface.tidy,
        suffixes=(".safetensors", ".bin"),
    ),
    "tensorflow": Layout(
        tensorflow.names,
        axes=HWIO,
        numerics=tensorflow.numerics,
        preprocess=official.tensorflow_preprocess,
        tidy=tensorflow.tidy,
        suffixes=(".index",),
    ),
    "keras": Layout(
        keras.names,
        axes=HWIO,
        archs=keras.ARCHS,
        preprocess=official.tensorflow_preprocess,
        fixed=True,
        suffixes=(".h5", ".weights.h5", ".keras"),
    ),
    "tflite": Layout(
        tflite.names,
        axes=OHWI,
        preprocess=official.tensorflow_preprocess,
        folded=True,
        suffixes=(".tflite",),
    ),
}
