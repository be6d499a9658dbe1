"""Whole modules, pickled; TorchScript; and pickles that would run a program."""

from __future__ import annotations

import os
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from torch import nn

from effnet.metadata import Numerics
from tests.parity.zoo import networks
from tests.parity.zoo.table import Opens, Refused, Sample, ZooFile
from tests.parity.zoo.training_files import perturbed
from tests.parity.zoo.user_modules import Watched, photo_classifier, pretended_modules

SAME, NATIVE = Numerics("same", 1e-3), Numerics("symmetric", 1e-5)


def native() -> nn.Module:
    """Return timm's own network, which pads symmetrically: its modules say so, the names of its tensors do not."""
    return networks.timm("efficientnet_b0")


def files() -> Iterator[ZooFile]:
    modules: dict[str, tuple[Callable[[], nn.Module], Numerics]] = {
        "timm's native network": (native, NATIVE),
        "timm's ported network": (networks.timm, SAME),
        "torchvision's": (networks.torchvision, NATIVE),
        "EfficientNet-PyTorch's": (networks.lukemelas, SAME),
        "a class of one's own around timm": (photo_classifier, SAME),
    }
    for name, (source, numerics) in modules.items():
        yield ZooFile("pickled module", name, partial(write_module, source), Opens(numerics=numerics))
    yield ZooFile("pickled module", "in a dict", write_in_dict, Opens(numerics=NATIVE))
    yield ZooFile(
        "pickled module",
        "beside its average, as detectors save",
        write_with_average,
        Opens(numerics=NATIVE, says=("(?i)averag|ema",)),
    )
    yield ZooFile("pickled module", "in DataParallel", write_data_parallel, Opens(numerics=NATIVE))
    yield ZooFile("pickled module", "in half precision", write_half, Opens(says=("float16",)))
    yield ZooFile("pickled module", "torch.save before 1.6", write_legacy, Opens(numerics=NATIVE))
    yield ZooFile("pickled module", "a class that is not installed", write_unknown_class, Opens())
    yield ZooFile(
        "pickled module", "with other ε, which it states", write_other_eps, Opens(numerics=Numerics("same", 1e-4))
    )
    yield from fastai_files()
    yield from script_files()
    yield from hostile_files()


def write_module(source: Callable[[], nn.Module], folder: Path) -> Sample:
    network = source()
    path = folder / "model.pth"
    torch.save(network, path)
    return networks.sample(path, network)


def write_in_dict(folder: Path) -> Sample:
    network = native()
    path = folder / "checkpoint.pth"
    torch.save({"model": network, "epoch": 3, "loss": 0.1}, path)
    return networks.sample(path, network)


def write_with_average(folder: Path) -> Sample:
    network = native()
    path = folder / "best.pt"
    torch.save({"epoch": 3, "model": perturbed(network), "ema": network, "updates": 300, "date": "2026-11-30"}, path)
    return networks.sample(path, network)


def write_data_parallel(folder: Path) -> Sample:
    network = native()
    path = folder / "model.pt"
    torch.save(nn.DataParallel(network), path)
    return networks.sample(path, network)


def write_half(folder: Path) -> Sample:
    network = deepcopy(networks.torchvision()).half()
    path = folder / "half.pt"
    torch.save(network, path)
    return networks.sample(path, network.float())


def write_legacy(folder: Path) -> Sample:
    """Write the format that keeps the source of every class beside the tensors."""
    network = native()
    path = folder / "model.pkl"
    torch.save(network, path, _use_new_zipfile_serialization=False)
    return networks.sample(path, network)


def write_unknown_class(folder: Path) -> Sample:
    class Net(nn.Module):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

    network = networks.torchvision()
    path = folder / "net.pth"
    with pretended_modules({"my_project.models.Net": Net}):
        torch.save(Net(network), path)
    return networks.sample(path, network)


def write_other_eps(folder: Path) -> Sample:
    network = networks.timm("tf_efficientnet_b0", bn_eps=1e-4)
    path = folder / "model.pth"
    torch.save(network, path)
    return networks.sample(path, network)


# fastai --------------------------------------------------------------------------------------------------------------


class L:
    """Stands for fastcore's list, which keeps its items so."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


def fastai_files() -> Iterator[ZooFile]:
    """Yield files in the structure that fastai writes, which is not installed with the tests."""
    head = Opens(classes=0, compared="embedding", says=("(?i)classifier",))
    yield ZooFile("fastai", "learn.save of a network of one's own", write_learner_save, Opens())
    yield ZooFile("fastai", "vision_learner on timm", write_vision_learner_timm, head)
    yield ZooFile("fastai", "vision_learner on torchvision", write_vision_learner_torchvision, head)
    yield ZooFile("fastai", "learn.export", write_learner_export, Opens(labels=networks.LABELS))


def fastai_optimizer() -> Any:
    """Return the state of fastai's optimizer, whose hyperparameters are in its own list."""
    hyperparameters = {"wd": 0.01, "lr": numpy.float64(1e-3), "mom": 0.9}
    return {"state": [{"step": 3, "grad_avg": torch.zeros(4)}], "hypers": L([hyperparameters])}


def fastai_head() -> nn.Module:
    """Return the head of ``create_head(1280, 7)``: two poolings, two batch norms, two linear layers."""
    return nn.Sequential(
        *(nn.Identity(), nn.Flatten(), nn.BatchNorm1d(2560), nn.Dropout(0.25), nn.Linear(2560, 512, bias=False)),
        *(nn.ReLU(), nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, networks.CLASSES, bias=False)),
    )


def save_learner(tensors: dict[str, torch.Tensor], folder: Path) -> Path:
    (folder / "models").mkdir()
    path = folder / "models" / "stage-1.pth"
    with pretended_modules({"fastcore.foundation.L": L}):
        torch.save({"model": tensors, "opt": fastai_optimizer()}, path, pickle_protocol=2)
    return path


def write_learner_save(folder: Path) -> Sample:
    network = networks.torchvision()
    return networks.sample(save_learner(networks.state(network), folder), network)


def write_vision_learner_timm(folder: Path) -> Sample:
    network = networks.timm()
    body = {name: value for name, value in networks.state(network, "0.model.").items() if "classifier" not in name}
    return networks.pooled_sample(save_learner(body | networks.state(fastai_head(), "1."), folder), network)


def write_vision_learner_torchvision(folder: Path) -> Sample:
    """Write a body that is ``Sequential(features)``: ``0.0.`` stands where torchvision says ``features.``."""
    network = networks.torchvision()
    body = networks.state(network.features, "0.0.")  # type: ignore[arg-type]
    return networks.pooled_sample(save_learner(body | networks.state(fastai_head(), "1."), folder), network)


def write_learner_export(folder: Path) -> Sample:
    """Write a pickled Learner: the network among data loaders, losses and callbacks of fastai's classes."""

    class Part:
        def __init__(self, **attributes: Any) -> None:
            self.__dict__.update(attributes)

    class Learner(Part): ...

    class DataLoaders(Part): ...

    class CrossEntropyLossFlat(Part): ...

    class Recorder(Part): ...

    class TensorImage(torch.Tensor): ...

    network = networks.torchvision()
    path = folder / "export.pkl"
    parts = {
        "fastai.learner.Learner": Learner,
        "fastai.data.core.DataLoaders": DataLoaders,
        "fastai.losses.CrossEntropyLossFlat": CrossEntropyLossFlat,
        "fastai.learner.Recorder": Recorder,
        "fastai.torch_core.TensorImage": TensorImage,
        "fastcore.foundation.L": L,
    }
    with pretended_modules(parts):
        learner = Learner(
            dls=DataLoaders(
                vocab=list(networks.LABELS),
                resample=Image.Resampling.BILINEAR,
                random=random.Random(0),
                normalize=torch.zeros(1, 3, 1, 1).as_subclass(TensorImage),
            ),
            model=network,
            loss_func=CrossEntropyLossFlat(func=nn.CrossEntropyLoss(), axis=-1),
            cbs=L([Recorder(values=[])]),
            opt=None,
            path=Path(),
            lr=1e-3,
        )
        torch.save(learner, path, pickle_protocol=2)
    return networks.sample(path, network)


# TorchScript ---------------------------------------------------------------------------------------------------------


def script_files() -> Iterator[ZooFile]:
    yield ZooFile("TorchScript", "trace of timm's", partial(write_trace, networks.timm), Opens(), sweep=True)
    yield ZooFile("TorchScript", "trace of torchvision's", partial(write_trace, networks.torchvision), Opens())
    yield ZooFile("TorchScript", "script of torchvision's", write_script, Opens())
    yield ZooFile(
        "TorchScript",
        "frozen: batch norm folded into constants",
        write_frozen,
        Refused(says=("(?i)TorchScript", "(?i)frozen|folded|no (named )?weights|constants")),
    )


def write_trace(source: Callable[[], nn.Module], folder: Path) -> Sample:
    network = source()
    path = folder / "traced.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and still what people have
        torch.jit.trace(network, networks.images().float(), check_trace=False).save(path)  # type: ignore[no-untyped-call]
    return networks.sample(path, network)


def write_script(folder: Path) -> Sample:
    network = networks.torchvision()
    path = folder / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(path)
    return networks.sample(path, network)


def write_frozen(folder: Path) -> Sample:
    network = networks.torchvision()
    path = folder / "frozen.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.trace(network, networks.images().float(), check_trace=False)).save(path)  # type: ignore[no-untyped-call]
    return Sample(path)


# Pickles that would run a program ------------------------------------------------------------------------------------


class _Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def hostile_files() -> Iterator[ZooFile]:
    for name, write in HOSTILE.items():
        yield ZooFile("would run a program", name, write, Opens())
    yield ZooFile(
        "would run a program",
        "instead of the weights",
        write_hostile_instead_of_weights,
        Refused(says=("(?i)no (weights|tensors)",)),
    )


def write_hostile(make: Callable[[Path], Any], legacy: bool, folder: Path) -> Sample:
    network = networks.torchvision()
    path, marker = folder / "model.pth", folder / "was-run"
    content = {"state_dict": networks.state(network), "extra": make(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert not marker.exists()
    return networks.sample(path, network, marker=marker)


def call_system(marker: Path) -> Any:
    return _Call(os.system, f"touch {marker}")


def call_eval(marker: Path) -> Any:
    return _Call(eval, f"open({str(marker)!r}, 'w').close()")


def call_path(marker: Path) -> Any:
    """Return calls that each look harmless: a path, and its method."""
    return _Call(getattr, _Call(Path, str(marker)), "touch"), _Call(_touch, str(marker))


def _touch(name: str) -> None:
    Path(name).touch()


def call_nested(marker: Path) -> Any:
    """Return a storage that is itself a pickle, as ``pickle.dumps`` of a tensor makes."""
    from torch.storage import _load_from_bytes

    return _Call(_load_from_bytes, pickle.dumps(_Call(os.system, f"touch {marker}")))


def call_in_partial(marker: Path) -> Any:
    return _Call(partial(os.system, f"touch {marker}"))


def call_by_key(marker: Path) -> Any:
    """Return a mapping whose key is the call."""
    return {"a": [({"b": _Call(os.system, f"touch {marker}")},)]}


def write_watched(folder: Path) -> Sample:
    network = networks.torchvision()
    path, marker = folder / "model.pth", folder / "was-run"
    torch.save(Watched(network, marker), path)
    return networks.sample(path, network, marker=marker)


def write_hostile_instead_of_weights(folder: Path) -> Sample:
    path, marker = folder / "model.pth", folder / "was-run"
    torch.save({"state_dict": call_system(marker)}, path)
    return Sample(path, marker=marker)


HOSTILE = {
    "os.system beside the weights": partial(write_hostile, call_system, False),
    "os.system in the format before 1.6": partial(write_hostile, call_system, True),
    "eval": partial(write_hostile, call_eval, False),
    "a function of an installed package": partial(write_hostile, call_path, False),
    "a pickle in a pickle": partial(write_hostile, call_nested, False),
    "functools.partial": partial(write_hostile, call_in_partial, False),
    "deep inside": partial(write_hostile, call_by_key, False),
    "a module's own __setstate__": write_watched,
}
