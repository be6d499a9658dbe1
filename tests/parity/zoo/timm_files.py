"""timm's files: evidence of the padding, its configuration, its relatives of the family, and those that are not."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from effnet.metadata import Numerics
from tests.parity.zoo import networks
from tests.parity.zoo.table import FLOAT64_LIMIT, Opens, Refused, Sample, ZooFile, write_photo

NATIVE, PORTED = Numerics("symmetric", 1e-5), Numerics("same", 1e-3)


def files() -> Iterator[ZooFile]:
    yield from evidence_files()
    yield from config_files()
    yield from relative_files()
    yield from outside_files()
    yield from channel_files()
    yield from sigmoid_files()


# Evidence of padding and ε -------------------------------------------------------------------------------------------


def evidence_files() -> Iterator[ZooFile]:
    native = Opens(numerics=NATIVE, says=("symmetric",))
    for name in ("efficientnet_b0", "efficientnet_lite0", "efficientnet_es"):
        arch = Opens(arch=name, numerics=NATIVE, says=(name,))
        yield ZooFile("timm: padding stated", f"config.json of {name}", partial(write_for_hub, name), arch)
    yield ZooFile(
        "timm: padding stated",
        "config.json of tf_efficientnet_b0",
        partial(write_for_hub, "tf_efficientnet_b0"),
        Opens(numerics=PORTED, says=("tf_efficientnet_b0",)),
    )
    yield ZooFile("timm: padding stated", "arch and args.model of train.py", write_train_script, native)
    yield ZooFile("timm: padding stated", "args.model alone", write_arguments, native)
    yield ZooFile(
        "timm: padding stated",
        "args.bn_eps of train.py beside args.model",
        write_arguments_with_eps,
        Opens(numerics=Numerics("symmetric", 1e-3), says=("symmetric",)),
    )
    for name, source in FILE_NAMES.items():
        numerics = PORTED if source.startswith("tf_") else NATIVE
        expected = Opens(arch=source, numerics=numerics, says=(source,))
        yield ZooFile("timm: padding stated", f"file name {name}", partial(write_named, source, name), expected)
    yield ZooFile("timm: padding stated", "identifier of the hub in its cache", write_hub_cache, native)
    for name in ("efficientnet_b0", "efficientnet_lite0", "efficientnet_es"):
        options = {"numerics": NATIVE}
        expected = Opens(arch=name, says=("same", "symmetric", "--padding"), options=options)
        yield ZooFile(
            "timm: padding not stated", f"{name} as model.pth", partial(write_named, name, "model.pth"), expected
        )


def write_for_hub(name: str, folder: Path, **config: Any) -> Sample:
    """Write as ``timm.models.push_to_hf_hub`` does before it uploads."""
    from timm.models._hub import save_for_hf

    network = networks.timm(name)
    save_for_hf(network, str(folder), safe_serialization=True, **config)
    return networks.sample(folder / "model.safetensors", network)


def training_arguments(name: str, **others: Any) -> Namespace:
    """Return some of the arguments of timm's ``train.py``."""
    return Namespace(
        model=name,
        num_classes=networks.CLASSES,
        img_size=None,
        crop_pct=None,
        mean=None,
        std=None,
        **{"opt": "rmsproptf", "lr": 0.016, "bn_eps": None, "bn_momentum": None, "model_ema": True, **others},
    )


def write_train_script(folder: Path) -> Sample:
    """Write by timm's ``CheckpointSaver``, as ``train.py`` does: the average beside the weights."""
    from timm.utils import CheckpointSaver, ModelEmaV3

    from tests.parity.zoo.training_files import perturbed

    network = networks.timm("efficientnet_b0")
    trained = perturbed(network)
    average = ModelEmaV3(network)
    optimizer = torch.optim.SGD(trained.parameters(), 0.1)
    CheckpointSaver(
        trained, optimizer, args=training_arguments("efficientnet_b0"), model_ema=average, checkpoint_dir=str(folder)
    ).save_checkpoint(3, 71.5)
    return networks.sample(folder / "last.pth.tar", network)


def write_arguments(folder: Path) -> Sample:
    network = networks.timm("efficientnet_b0")
    path = folder / "checkpoint.pth"
    torch.save({"model": networks.state(network), "args": training_arguments("efficientnet_b0")}, path)
    return networks.sample(path, network)


def write_arguments_with_eps(folder: Path) -> Sample:
    network = networks.timm("efficientnet_b0", bn_eps=1e-3)
    path = folder / "checkpoint.pth"
    torch.save({"model": networks.state(network), "args": training_arguments("efficientnet_b0", bn_eps=1e-3)}, path)
    return networks.sample(path, network)


FILE_NAMES = {
    "efficientnet_b0_ra-3dd342df.pth": "efficientnet_b0",
    "efficientnet_lite0_ra-37913777.pth": "efficientnet_lite0",
    "efficientnet_es_ra-f111e99c.pth": "efficientnet_es",
    "tf_efficientnet_b0_ns-c0e6a31c.pth": "tf_efficientnet_b0",
    "my_efficientnet_b0.ra_in1k_flowers_fold1.pth": "efficientnet_b0",
}


def write_named(source: str, name: str, folder: Path) -> Sample:
    network = networks.timm(source)
    torch.save(networks.state(network), folder / name)
    return networks.sample(folder / name, network)


def write_hub_cache(folder: Path) -> Sample:
    """Write where ``huggingface_hub`` keeps a repository, without its configuration."""
    network = networks.timm("efficientnet_b0")
    path = folder / "models--timm--efficientnet_b0.ra_in1k" / "snapshots" / "0a1b2c3d" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(networks.state(network), path)
    return networks.sample(path, network)


# config.json beside the weights --------------------------------------------------------------------------------------


def config_files() -> Iterator[ZooFile]:
    labels = list(networks.LABELS)
    stated = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.25, 0.25), "crop_pct": 0.95, "interpolation": "bilinear"}
    data = {**stated, "input_size": (3, 160, 192)}
    preprocess = {
        "mean": stated["mean"],
        "std": stated["std"],
        "crop_fraction": 0.95,
        "interpolation": "bilinear",
        "size": (160, 192),
        "resize": "crop",
    }
    write = partial(write_for_hub, "efficientnet_b0", model_config={"label_names": labels}, data_config=data)
    yield ZooFile(
        "timm: config.json",
        "names, mean, std, crop, interpolation, size",
        write,
        Opens(preprocess=preprocess, labels=networks.LABELS, numerics=NATIVE),
    )
    by_index = {str(index): name for index, name in enumerate(labels)}
    write = partial(
        write_for_hub,
        "tf_efficientnet_b0",
        model_config={"label_names": by_index},
        data_config={"crop_mode": "squash", "crop_pct": 1.0},
    )
    yield ZooFile(
        "timm: config.json",
        "names by index, squashed images",
        write,
        Opens(preprocess={"resize": "squash", "crop_fraction": 1.0}, labels=networks.LABELS, numerics=PORTED),
    )
    yield ZooFile(
        "timm: config.json",
        "descriptions of the names",
        write_descriptions,
        Opens(labels=networks.LABELS, numerics=NATIVE),
    )


def write_descriptions(folder: Path) -> Sample:
    """Write names as synsets, and what they are called."""
    synsets = [f"n0{index}440764" for index in range(networks.CLASSES)]
    described = dict(zip(synsets, networks.LABELS, strict=True))
    config = {"label_names": synsets, "label_descriptions": described}
    return write_for_hub("efficientnet_b0", folder, model_config=config)


# Relatives whose rows are MBConv -------------------------------------------------------------------------------------

RELATIVES = {  # name → whether its test is quick
    "efficientnetv2_rw_t": True,
    "efficientnetv2_rw_s": False,
    "efficientnetv2_rw_m": False,
    "tinynet_a": False,
    "tinynet_b": False,
    "tinynet_c": False,
    "tinynet_d": False,
    "tinynet_e": True,
    "mobilenetv2_035": True,
    "mobilenetv2_100": False,
    "mobilenetv2_120d": False,
    "mobilenetv2_140": False,
    "mnasnet_small": True,
    "mnasnet_050": False,
    "mnasnet_100": False,
    "test_efficientnet": True,
    "efficientnet_b1_pruned": True,
    "efficientnet_b2_pruned": False,
    "efficientnet_b3_pruned": False,
    "efficientnet_es_pruned": True,
    "efficientnet_el_pruned": False,
}


def relative_files() -> Iterator[ZooFile]:
    for name, quick in RELATIVES.items():
        # As widths and padding are those of the named network, its name is in the file's
        yield ZooFile(
            "timm: relative of the family",
            name,
            partial(write_named, name, f"{name}_in1k.pth"),
            Opens(arch=name, limit=10 * FLOAT64_LIMIT if name == "efficientnetv2_rw_m" else FLOAT64_LIMIT),
            sweep=not quick,
        )


# Networks outside of the family, refused by name ---------------------------------------------------------------------

OUTSIDE = {  # name → (what the message must say, whether its test is quick)
    "efficientnet_b0_gn": (("efficientnet_b0_gn", "group norm"), True),
    "efficientnet_b3_g8_gn": (("efficientnet_b3_g8_gn", "group"), False),
    "test_efficientnet_gn": (("test_efficientnet_(gn|ln)", "norm"), True),  # the two have the same tensors
    "test_efficientnet_ln": (("test_efficientnet_(gn|ln)", "norm"), True),
    "efficientnet_b0_g16_evos": (("efficientnet_b0_g16_evos", "(?i)EvoNorm"), True),
    "efficientnet_cc_b0_4e": (("efficientnet_cc_b0_4e", "(?i)condconv|conditional"), True),
    "mixnet_s": (("mixnet_s", "(?i)mixed|kernels"), True),
    "tf_mixnet_s": (("mixnet_s", "(?i)mixed|kernels"), False),
    "efficientnet_x_b3": (("efficientnet_x_b3", "(?i)space.to.depth"), True),
    "efficientnet_h_b5": (("efficientnet_h_b5", "(?i)space.to.depth"), False),
}


def outside_files() -> Iterator[ZooFile]:
    for name, (says, quick) in OUTSIDE.items():
        yield ZooFile(
            "timm: refused by name",
            f"{name} as model.pth",
            partial(write_random, name, "model.pth"),
            Refused(says=says),
            sweep=not quick,
        )
    # Its tensors are those of B0: only what lies beside them can tell
    for name, write in BLURRED.items():
        yield ZooFile(
            "timm: refused by name",
            f"efficientnet_blur_b0, {name}",
            write,
            Refused(says=("efficientnet_blur_b0", "(?i)blur")),
        )
    yield ZooFile(
        "not an EfficientNet",
        "ResNet-18 of torchvision",
        write_resnet,
        Refused(says=("(?i)nearest", r"\b\d+ of (its )?\d+\b")),
    )
    for name, write in NEARLY.items():
        yield ZooFile(
            "nearly an EfficientNet",
            name,
            write,
            Refused(says=(r"\bb0\b", "timm", r"\b\d+ of (its )?\d+\b", r"blocks\.")),
        )


def write_random(name: str, file: str, folder: Path) -> Sample:
    """Write the network as it is created: it is refused for its names and shapes."""
    torch.save(create(name).state_dict(), folder / file)
    return Sample(folder / file)


def create(name: str) -> nn.Module:
    """Return timm's network of random weights."""
    from timm import create_model

    torch.manual_seed(0)
    network: nn.Module = create_model(name, num_classes=networks.CLASSES)
    return network


def write_blurred_for_hub(folder: Path) -> Sample:
    from timm.models._hub import save_for_hf

    save_for_hf(create("efficientnet_blur_b0"), str(folder), safe_serialization=True)
    return Sample(folder / "model.safetensors")


def write_blurred_arguments(folder: Path) -> Sample:
    path = folder / "model_best.pth.tar"
    name = "efficientnet_blur_b0"
    torch.save({"state_dict": create(name).state_dict(), "arch": name, "args": training_arguments(name)}, path)
    return Sample(path)


def write_blurred_module(folder: Path) -> Sample:
    torch.save(create("efficientnet_blur_b0"), folder / "model.pth")
    return Sample(folder / "model.pth")


BLURRED: dict[str, Callable[[Path], Sample]] = {
    "by the file's name": partial(write_random, "efficientnet_blur_b0", "efficientnet_blur_b0.pth"),
    "by config.json": write_blurred_for_hub,
    "by args.model": write_blurred_arguments,
    "as a pickled module": write_blurred_module,
}


def write_resnet(folder: Path) -> Sample:
    from effnet.data.torchvision_compat import declare_operators

    declare_operators()
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), folder / "resnet18.pth")
    return Sample(folder / "resnet18.pth")


def write_truncated(folder: Path) -> Sample:
    """Write a network that lost a stage."""
    tensors = {name: value for name, value in networks.state(networks.timm()).items() if "blocks.5." not in name}
    torch.save(tensors, folder / "truncated.pth")
    return Sample(folder / "truncated.pth")


def write_widened(folder: Path) -> Sample:
    """Write a network whose fourth stage was widened by hand."""
    tensors = networks.state(networks.timm())
    for name, value in tensors.items():
        if name.startswith("blocks.3.1.conv_pw."):
            tensors[name] = torch.cat((value, value[:16]))
    torch.save(tensors, folder / "widened.pth")
    return Sample(folder / "widened.pth")


def write_attended(folder: Path) -> Sample:
    """Write a network with an attention module of one's own in every block of a stage."""
    tensors = networks.state(networks.timm())
    for block in range(3):
        for part in ("query", "key", "value"):
            tensors[f"blocks.3.{block}.attention.{part}.weight"] = torch.zeros(8, 80, 1, 1)
    torch.save(tensors, folder / "attended.pth")
    return Sample(folder / "attended.pth")


NEARLY = {
    "B0 without a stage": write_truncated,
    "B0 with wider blocks": write_widened,
    "B0 with attention in its blocks": write_attended,
}

# Input channels ------------------------------------------------------------------------------------------------------


def channel_files() -> Iterator[ZooFile]:
    for channels in (1, 4):
        expected = Opens(channels=channels)
        yield ZooFile("input channels", f"{channels} in timm", partial(write_channels, channels), expected)
    yield ZooFile("input channels", "1 in EfficientNet-PyTorch", write_grey_lukemelas, Opens(channels=1))


def write_channels(channels: int, folder: Path) -> Sample:
    return channel_sample(networks.timm("tf_efficientnet_b0", in_chans=channels), channels, folder)


def write_grey_lukemelas(folder: Path) -> Sample:
    return channel_sample(networks.lukemelas(channels=1), 1, folder)


def channel_sample(network: nn.Module, channels: int, folder: Path) -> Sample:
    path, x = folder / "model.pth", networks.images(channels)
    torch.save(networks.state(network), path)
    photo = write_photo(folder, channels, partial(networks.softmax, network))
    return Sample(path, x, networks.answer(network, x), photo=photo)


# One output and a sigmoid --------------------------------------------------------------------------------------------


def sigmoid_files() -> Iterator[ZooFile]:
    two = Opens(classes=2, compared="sigmoid")
    yield ZooFile("one output and a sigmoid", "timm with num_classes=1", write_one_output, two)
    yield ZooFile(
        "one output and a sigmoid",
        "names of both classes in config.json",
        write_one_output_with_names,
        Opens(classes=2, compared="sigmoid", labels=("cat", "dog")),
    )


def write_one_output(folder: Path) -> Sample:
    network = networks.timm(classes=1)
    torch.save(networks.state(network), folder / "cats_and_dogs.pth")
    photo = write_photo(folder, 3, partial(networks.sigmoid, network))
    return networks.sample(folder / "cats_and_dogs.pth", network, photo=photo)


def write_one_output_with_names(folder: Path) -> Sample:
    """Write a configuration that names the class of 0 and the class of 1."""
    from timm.models._hub import save_for_hf

    network = networks.timm(classes=1)
    save_for_hf(network, str(folder), {"label_names": ["cat", "dog"]}, safe_serialization=True)
    photo = write_photo(folder, 3, partial(networks.sigmoid, network))
    return networks.sample(folder / "model.safetensors", network, photo=photo)
