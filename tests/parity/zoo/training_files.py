"""What training code saves: a state dict in wrappers, under prefixes, beside other tensors and averages."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.parity.zoo import networks
from tests.parity.zoo.table import Opens, Refused, Sample, ZooFile
from tests.parity.zoo.user_modules import TwoTowers

# Any attribute of a LightningModule or a network of one's own
PREFIXES = (
    *("base.", "base_model.", "encoder.", "network.", "cnn.", "student.", "feature_extractor.", "classifier.", "m."),
    *("ema_model.", "0.model.", "model.backbone.net.", "_forward_module.module."),
)


def files() -> Iterator[ZooFile]:
    yield from prefix_files()
    yield from lightning_files()
    yield from average_files()
    yield from wrapper_files()


def others() -> dict[str, Tensor]:
    """Return what lies beside the network in a module of one's own: the weights of a loss, the state of a metric."""
    return {
        "criterion.weight": torch.linspace(0.5, 2, networks.CLASSES),
        "train_accuracy.confmat": torch.zeros(networks.CLASSES, networks.CLASSES, dtype=torch.long),
    }


# Prefixes ------------------------------------------------------------------------------------------------------------


def prefix_files() -> Iterator[ZooFile]:
    sources = (networks.torchvision, networks.timm, networks.lukemelas)
    for index, prefix in enumerate(PREFIXES):
        source, save = sources[index % 3], (save_lightning, save_accelerate, save_wrapped)[index // 3 % 3]
        says = (prefix.rstrip(".").replace(".", r"\."), r"criterion\.weight")
        yield ZooFile(
            "prefix beside other tensors",
            f"{prefix} in {source.__name__}'s names, {save.__name__.removeprefix('save_')}",
            partial(write_prefixed, source, prefix, save),
            Opens(says=says),
        )


def write_prefixed(source: Any, prefix: str, save: Any, folder: Path) -> Sample:
    network = source()
    return networks.sample(save(networks.state(network, prefix) | others(), folder), network)


def save_wrapped(tensors: dict[str, Tensor], folder: Path) -> Path:
    """Save as a training loop of one's own does."""
    path = folder / "checkpoint.pth"
    torch.save({"epoch": 3, "model": tensors, "optimizer": optimizer_state(), "best_acc": 0.91}, path)
    return path


def save_accelerate(tensors: dict[str, Tensor], folder: Path) -> Path:
    """Save as ``Accelerator.save_model`` and ``save_state`` do: a safetensors file of this name."""
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    return path


def save_lightning(tensors: dict[str, Tensor], folder: Path, **extra: Any) -> Path:
    """Save what ``Trainer.save_checkpoint`` does: by hand, as Lightning is not installed with the tests."""
    path = folder / "epoch=2-step=300.ckpt"
    content = {
        "epoch": 2,
        "global_step": 300,
        "pytorch-lightning_version": "2.5.5",
        "state_dict": OrderedDict(tensors),
        "loops": {
            "fit_loop": {
                "state_dict": {},
                "epoch_loop.state_dict": {"_batches_that_stepped": 300},
                "epoch_loop.batch_progress": {
                    "total": {"ready": 300, "completed": 300, "started": 300, "processed": 300},
                    "current": {"ready": 100, "completed": 100, "started": 100, "processed": 100},
                    "is_last_batch": True,
                },
            },
            "validate_loop": {"state_dict": {}},
        },
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
            "'train_time_interval': None}": {
                "monitor": "val_loss",
                "best_model_score": torch.tensor(0.31),
                "best_model_path": "/kaggle/working/epoch=2-step=300.ckpt",
                "best_k_models": {"/kaggle/working/epoch=2-step=300.ckpt": torch.tensor(0.31)},
                "kth_value": torch.tensor(0.31),
            }
        },
        "optimizer_states": [optimizer_state()],
        "lr_schedulers": [{"T_max": 3, "eta_min": 0.0, "base_lrs": [0.001], "last_epoch": 3, "_step_count": 4}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3, "num_classes": networks.CLASSES, "backbone": "b0"},
    }
    torch.save(content | extra, path)
    return path


def optimizer_state() -> dict[str, Any]:
    """Return the state of an optimizer: its tensors must not be taken for weights."""
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state: dict[str, Any] = optimizer.state_dict()
    return state


# Lightning -----------------------------------------------------------------------------------------------------------


def lightning_files() -> Iterator[ZooFile]:
    yield ZooFile("Lightning", "model. alone", write_plain_lightning, Opens())
    yield ZooFile(
        "Lightning",
        "model. beside metrics and loss",
        partial(write_prefixed, networks.torchvision, "model.", save_lightning),
        Opens(says=("model", r"criterion\.weight")),
    )
    yield ZooFile("Lightning", "averaged weights by its WeightAveraging", write_weight_averaging, Opens())
    yield ZooFile("Lightning", "hyperparameters that are objects", write_own_hyperparameters, Opens())


def write_plain_lightning(folder: Path) -> Sample:
    network = networks.torchvision()
    return networks.sample(save_lightning(networks.state(network, "model."), folder), network)


def write_weight_averaging(folder: Path) -> Sample:
    """Write as ``WeightAveraging`` does: ``state_dict`` is the average, the model's own weights lie beside it."""
    network = networks.torchvision()
    extra = {
        "current_model_state": networks.state(perturbed(network), "model."),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    }
    return networks.sample(save_lightning(networks.state(network, "model."), folder, **extra), network)


def write_own_hyperparameters(folder: Path) -> Sample:
    network = networks.torchvision()
    settings = Namespace(model=Namespace(name="b0"), loss=nn.CrossEntropyLoss(), device=torch.device("cpu"))
    path = save_lightning(networks.state(network, "model."), folder, hyper_parameters=vars(settings))
    return networks.sample(path, network)


# Averages of the weights ---------------------------------------------------------------------------------------------


@torch.no_grad()
def perturbed(network: nn.Module) -> nn.Module:
    """Return a copy with other weights, as the network beside its average has them."""
    copy = deepcopy(network)
    torch.manual_seed(2)
    for parameter in copy.parameters():
        parameter += 0.1 * parameter.std().nan_to_num() * torch.randn_like(parameter)
    return copy


def average_files() -> Iterator[ZooFile]:
    for own, average in (("model.", "ema_model."), ("model.", "model_ema.module."), ("net.", "ema.module.")):
        yield ZooFile(
            "weights and their average",
            f"{own} and {average}",
            partial(write_average, own, average, False),
            Opens(says=("(?i)averag|ema", average.rstrip(".").replace(".", r"\."))),
        )
    yield ZooFile(
        "weights and their average",
        "online_model. and ema_model. of ema-pytorch",
        partial(write_average, "online_model.", "ema_model.", True),
        Opens(says=("(?i)averag|ema", "ema_model")),
    )
    for key in ("state_dict_ema", "model_ema", "ema_state_dict"):
        yield ZooFile(
            "weights and their average",
            f"{key} of a training script",
            partial(write_average_key, key),
            Opens(says=("(?i)averag", key)),
        )
    yield ZooFile("two networks", "towers of equal rank", write_two_towers, Refused(says=("left", "right")))


def write_average(own: str, average: str, counters: bool, folder: Path) -> Sample:
    network = networks.torchvision()
    tensors = networks.state(perturbed(network), own) | networks.state(network, average)
    if counters:
        tensors |= {"initted": torch.tensor(True), "step": torch.tensor(300)}
    return networks.sample(save_lightning(tensors, folder), network)


def write_average_key(key: str, folder: Path) -> Sample:
    network = networks.torchvision()
    path = folder / "last.pth.tar"
    torch.save({"state_dict": networks.state(perturbed(network)), key: networks.state(network), "epoch": 3}, path)
    return networks.sample(path, network)


def write_two_towers(folder: Path) -> Sample:
    network = networks.torchvision()
    path = folder / "towers.pth"
    torch.save(TwoTowers(network, perturbed(network)).state_dict(), path)
    return Sample(path)


# Wrappers ------------------------------------------------------------------------------------------------------------


def wrap_data_parallel(network: nn.Module) -> dict[str, Tensor]:
    return networks.state(nn.DataParallel(network))


def wrap_distributed(network: nn.Module) -> dict[str, Tensor]:
    """Name as DistributedDataParallel does around a compiled network."""
    return networks.state(network, "module._orig_mod.")


def wrap_compiled(network: nn.Module) -> dict[str, Tensor]:
    """Name as the module that ``torch.compile`` returns."""
    return networks.state(network, "_orig_mod.")


def wrap_averaged(network: nn.Module) -> dict[str, Tensor]:
    return networks.state(torch.optim.swa_utils.AveragedModel(network))


def wrappers() -> dict[str, Any]:
    return {
        "DataParallel": wrap_data_parallel,
        "DistributedDataParallel around torch.compile": wrap_distributed,
        "torch.compile": wrap_compiled,
        "AveragedModel of stochastic weight averaging": wrap_averaged,
    }


def wrapper_files() -> Iterator[ZooFile]:
    for name, wrap in wrappers().items():
        yield ZooFile("wrapper", name, partial(write_wrapper, wrap), Opens())
    yield ZooFile("wrapper", "a list of model and optimizer", write_list, Opens())
    yield ZooFile("wrapper", "torch.save before 1.6", write_legacy, Opens())
    yield ZooFile("wrapper", "bfloat16", write_bfloat16, Opens(says=("bfloat16",)))


def write_wrapper(wrap: Any, folder: Path) -> Sample:
    network = networks.torchvision()
    path = folder / "last.pt"
    torch.save(wrap(network), path)
    return networks.sample(path, network)


def write_list(folder: Path) -> Sample:
    """Write as scripts do that save ``[model.state_dict(), optimizer.state_dict()]``."""
    network = networks.torchvision()
    path = folder / "model_and_optimizer.pth"
    torch.save([networks.state(network), optimizer_state()], path)
    return networks.sample(path, network)


def write_legacy(folder: Path) -> Sample:
    network = networks.torchvision()
    path = folder / "model_best.pth.tar"
    content = {"epoch": 90, "arch": "efficientnet_b0", "state_dict": networks.state(network), "best_acc1": 76.1}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return networks.sample(path, network)


def write_bfloat16(folder: Path) -> Sample:
    network = deepcopy(networks.torchvision()).to(torch.bfloat16)
    path = folder / "bfloat16.pth"
    torch.save(network.state_dict(), path)
    return networks.sample(path, network.float())
