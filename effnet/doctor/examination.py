"""`diagnose`: checks of the weights first, then trials on a balanced sample of the images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from effnet.arch.serde import check_int
from effnet.data import (
    ImageDataset,
    ImageError,
    Item,
    bit_depth,
    check_images,
    class_names,
    dataset_sources,
    duplicates,
    prediction_inputs,
    read_image,
)
from effnet.doctor import advice, diagnosis, hypotheses, search, weight_checks
from effnet.evaluation.evaluator import open_evaluation_data, pick_split
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.runtime.torch import select_device
from effnet.weights import load, running_statistics

DEFAULT_IMAGES = 200
MAX_FITTED_IMAGES = 24  # to whose maps the running statistics of all layers are compared
MIN_IMAGES = 20  # with fewer, differences are lost in noise
_MAX_LISTED_IMAGES = 10_000  # unlabeled images that are sampled from


def diagnose(
    model: EfficientNet | str | Path,
    data: ImageDataset | str | Path | None = None,
    max_images: int = DEFAULT_IMAGES,
    seed: int = 0,
    split: str | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    bits: int | None = None,
) -> diagnosis.Diagnosis:
    """Find what makes a model's accuracy silently low, and what to do about it.

    Without data the weights and labels are checked, and by the running statistics, on two photos that scikit-learn
    ships, padding and ε. With unlabeled images (a folder without class folders, a pattern) these are compared on them,
    and the stem's statistics show whether mean, std and channel order are those of the training. With labeled images,
    every neighbor of the model's configuration is tried; the best that is significantly better is kept, and its
    neighbors are tried in turn.

    Args:
        model: A network, or whatever `effnet.load` takes.
        data: Labeled images as for `effnet.evaluate`, or unlabeled ones.
        max_images: Number of images to try, balanced over the classes.
        seed: Decides which images.
        split: "train", "val" or "test"; default: as for `effnet.evaluate`.
        device: PyTorch device; default: the GPU if there is one.
        progress: Called with (images done in this round, all images).
        bits: How many bits 16-bit files hold, as for `effnet.evaluate`.

    Raises:
        ValueError: If the model is not for RGB, the classes of the data do not match its outputs, or there are too few
            images.

    Example:
        >>> [finding.code for finding in effnet.diagnose("model.pth", "photos").findings]
        ['mean-std', 'labels-shifted']
    """
    check_int("max_images", max_images, MIN_IMAGES)
    network = model if isinstance(model, EfficientNet) else load(model)
    configuration = diagnosis.Configuration(network.preprocess, network.numerics)
    findings = tuple(weight_checks.check_weights(network))
    if any(finding.code == "not-finite" for finding in findings):
        return diagnosis.Diagnosis((*findings, *weight_checks.find_unusual(network)), configuration)
    if data is None:
        alone = search.ConfigurationSearch(
            *(network, ImageDataset((), Labels()), select_device("cpu"), None, configuration, False),
            _fit_numerics(network),
        )
        alone.search_by_running_statistics()
        unusual = weight_checks.find_unusual(network)
        return diagnosis.Diagnosis((*alone.findings, *findings, *unusual), alone.configuration)
    if (color := network.preprocess.color_mode) != "RGB":
        raise ValueError(f"on images the doctor examines networks for RGB only: this one takes {color}")
    sample = sample_images(network, data, max_images, seed, split)
    configuration = replace(configuration, label_order=tuple(range(len(sample.names))))
    has_statistics = weight_checks.has_statistics(network)
    preprocess = bit_depth.choose_bits(network.preprocess, (item.image for item in sample.dataset.items), bits)
    configuration = replace(configuration, preprocess=preprocess)
    arguments = (network, sample.dataset, select_device(device), progress, configuration, has_statistics)
    images = [read_image(item.image, bits=preprocess.bits) for item in sample.dataset.items[:MAX_FITTED_IMAGES]]
    state = search.ConfigurationSearch(*arguments, _fit_numerics(network, images))
    top1 = best_top1 = None
    if sample.labels is not None:
        top1, best_top1 = state.search_by_labels(sample.names, sample.labels)
        findings = tuple(finding for finding in findings if finding.code != "labels-shifted")  # it was tried
    else:
        if has_statistics:
            state.search_by_stem()
            state.search_by_running_statistics()
        findings = (*findings, *weight_checks.find_unusual(network))
    return diagnosis.Diagnosis(
        (*state.findings, *sample.findings, *findings),
        state.configuration,
        tuple(state.trials),
        len(sample.dataset),
        sample.labels is not None,
        top1,
        best_top1,
        sample.skipped,
        sample.names,
    )


def _fit_numerics(network: EfficientNet, images: list[Image.Image] | None = None) -> running_statistics.NumericsFit:
    """Return the padding and ε that the running statistics fit, on these images or on two photos."""
    tensors = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return running_statistics.fit_numerics(tensors, network.arch, network.preprocess, images)


@dataclass(frozen=True, eq=False)
class SampledImages:
    """Readable images, one of each class in turn."""

    dataset: ImageDataset
    skipped: tuple[str, ...]  # error messages of images that could not be read
    names: tuple[str, ...] = ()  # the model's labels, or if it has none the data's
    labels: hypotheses.IntArray | None = None  # (N,) indices into `names`; None if the images are unlabeled
    findings: tuple[diagnosis.Finding, ...] = ()  # what does not match between the labels of model and data


def sample_images(
    network: EfficientNet, data: ImageDataset | str | Path, max_images: int, seed: int, split: str | None
) -> SampledImages:
    """Sample at most ``max_images``, balanced over the classes."""
    labeled = _open_labeled(network, data, split)
    if labeled is None or not network.classes:
        chosen, errors = check_images(_sample_balanced(labeled or _open_unlabeled(data), max_images, seed))
        sample = SampledImages(chosen, tuple(map(str, errors)))
    elif {network.labels.task, labeled.labels.task} != {"classification"}:
        raise ValueError(
            "with labels, the doctor needs a classification model and one class per image: give it images without "
            "labels to use the stem's statistics instead"
        )
    else:
        names, indices, findings = _match_labels(network, labeled)
        known = labeled.subset(row for row, label in enumerate(labeled.targets) if indices[label] >= 0)
        chosen, errors = check_images(_sample_balanced(known, max_images, seed))
        sample = SampledImages(chosen, tuple(map(str, errors)), names, np.array(indices)[chosen.targets], findings)
    if len(sample.dataset) < MIN_IMAGES:
        raise ValueError(f"only {len(sample.dataset)} usable images: the doctor needs at least {MIN_IMAGES}")
    return sample


def _sample_balanced(dataset: ImageDataset, max_images: int, seed: int) -> ImageDataset:
    shuffled = np.random.default_rng(seed).permutation(len(dataset))
    labels = dataset.targets[shuffled]
    turn = np.zeros(len(labels), np.int64)  # number of images of the same class before
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return dataset.subset(shuffled[np.argsort(turn, kind="stable")][:max_images].tolist())


def _open_labeled(network: EfficientNet, data: ImageDataset | str | Path, split: str | None) -> ImageDataset | None:
    """Return the labeled images, or None for a folder of images without class folders."""
    if isinstance(data, ImageDataset):
        return data
    if not dataset_sources.may_have_labels(data):
        return None
    name, dataset = pick_split(open_evaluation_data(data, network.labels, network.classes), split)
    duplicates.log_label_conflicts({name: dataset})
    return dataset


def _open_unlabeled(data: ImageDataset | str | Path) -> ImageDataset:
    assert not isinstance(data, ImageDataset)
    readable = (
        (name, image) for name, image in prediction_inputs.open_inputs([data]) if not isinstance(image, ImageError)
    )
    items = (
        Item(Path(image) if isinstance(image, (str, Path)) else np.asarray(read_image(image)), 0, name)
        for name, image in readable
    )
    return ImageDataset(tuple(islice(items, _MAX_LISTED_IMAGES)), Labels(("image",)))


def _match_labels(
    network: EfficientNet, dataset: ImageDataset
) -> tuple[tuple[str, ...], list[int], tuple[diagnosis.Finding, ...]]:
    """Return the model's labels, the index among them of each class of the data (−1: none), and what does not match."""
    known, classes, outputs = network.labels.names[: network.classes], dataset.labels.names, network.classes
    if not known:
        if len(classes) not in (outputs, outputs - 1):
            raise ValueError(f"the model has {outputs} outputs without names, the data has {len(classes)} classes")
        return classes, list(range(len(classes))), ()
    indices, _ = class_names.match_classes(classes, known, outputs)
    missing = [name for name, index in zip(classes, indices, strict=True) if index is None]
    if len(missing) == len(classes):
        raise ValueError(
            f"the model knows none of the classes {', '.join(classes[:5])}; it knows {', '.join(known[:5])}"
        )
    findings = (advice.unknown_labels_finding(missing, known),) if missing else ()
    return known, [-1 if index is None else index for index in indices], findings
