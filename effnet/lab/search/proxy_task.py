"""The proxy task of a search: a small dataset in memory, and the short training that every network gets on it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from math import isfinite
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from effnet.arch import ARCHS, Arch
from effnet.arch.serde import parse_json
from effnet.data import ImageDataset, Splits, bit_depth, holdout, load_input, open_data, prefetch, preprocessing
from effnet.data.storage.atomic_write import atomic_write
from effnet.metadata import Preprocess
from effnet.net import EfficientNet, create
from effnet.training import distributed, loop, recipes, schedule

SELECTION_FRACTION = 0.2  # of the training images: the search selects on them
MAX_IMAGE_BYTES = 8e9  # of decoded images
RESIZE_BATCH_SIZE, EVALUATION_BATCH_SIZE = 1024, 500
SHIFT_DIVISOR = 8  # images are shifted by up to an eighth of their side

# Plain and fast: no EMA, which would lag behind in so few steps, and batch norm statistics that follow as quickly
PROXY_RECIPE = recipes.Recipe(
    name="proxy",
    epochs=3,
    batch_size=64,
    optimizer="sgd",
    learning_rate=0.1,
    lr_reference_batch=64,
    warmup_epochs=0.5,
    weight_decay=5e-4,
    label_smoothing=0.0,
    ema_decay=0.0,
    bn_momentum=0.1,
)
# It trains on a thousand images per second and core, and its last stage still gets 4×4 pixels
BASE_ARCH = replace(ARCHS["nano"], name="nano_16", resolution=16, dropout=0.0, drop_path=0.0)


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images, uint8 (N, 3, size, size), and their classes, int64 (N,)."""

    images: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def resize(self, size: int) -> "LabeledImages":
        """Return the same images at ``size`` pixels a side."""
        return LabeledImages(_resize_images(self.images, size), self.classes)


@lru_cache(maxsize=6)
def _resize_images(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    resized = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for batch, into in zip(images.split(RESIZE_BATCH_SIZE), resized.split(RESIZE_BATCH_SIZE), strict=True):  # type: ignore[no-untyped-call]
        into[:] = F.interpolate(batch, (size, size), mode="bilinear", antialias=True)
    return resized


@dataclass(frozen=True, eq=False)
class SearchDataset:
    """The images of a search: to train on, to select on, and to test the finalists on once all is selected.

    ``test`` is the validation or test split; without one it is ``selection``, and ``has_test`` is False.
    """

    train: LabeledImages
    selection: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
    horizontal_flip: bool
    fingerprint: str  # of all pixels and classes
    has_test: bool

    def save(self, path: Path) -> None:
        """Write it to one file, for other processes."""
        splits = {"train": self.train, "selection": self.selection} | ({"test": self.test} if self.has_test else {})
        tensors = {f"{name}.images": split.images for name, split in splits.items()}
        tensors |= {f"{name}.classes": split.classes for name, split in splits.items()}
        header = {"class_names": self.class_names, "flip": self.horizontal_flip, "fingerprint": self.fingerprint}
        with atomic_write(path) as partial_path:
            save_file(tensors, partial_path, {"dataset": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> "SearchDataset":
        """Read what `save` wrote."""
        with safe_open(path, "pt") as file:
            header = parse_json(file.metadata()["dataset"], path)
            names = {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118 – not a dict
            splits = {
                name: LabeledImages(file.get_tensor(f"{name}.images"), file.get_tensor(f"{name}.classes"))
                for name in names
            }
        return cls(
            splits["train"],
            splits["selection"],
            splits.get("test", splits["selection"]),
            tuple(header["class_names"]),
            header["flip"],
            header["fingerprint"],
            has_test="test" in splits,
        )


def load_dataset(
    source: str | Path | Splits,
    image_size: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SearchDataset:
    """Decode ``source`` (as `effnet.data.open_data`) to squares of ``image_size``; a fifth is held out for selection.

    Raises ``ValueError`` if it is no classification, has no training images, or would not fit in memory.
    """
    splits = source if isinstance(source, Splits) else open_data(source)
    if splits.train is None:
        raise ValueError("no training images found: pass a folder with train/, or with one folder per class")
    if splits.train.labels.task != "classification":
        raise ValueError("a search compares top-1 accuracies and needs images with one class each")
    train, selection = holdout(splits.train, SELECTION_FRACTION, seed)
    test = splits.val or splits.test
    total = len(splits.train) + len(test or ())
    if total * 3 * image_size**2 > MAX_IMAGE_BYTES:
        raise ValueError(
            f"{total:,} images of {image_size}×{image_size} pixels do not fit in memory: use fewer images or a smaller "
            "base"
        )
    preprocess = Preprocess(size=(image_size, image_size), crop_fraction=1.0, decode="reduced")
    preprocess = bit_depth.choose_bits(preprocess, (item.image for item in train.items))
    done = 0

    def decode(dataset: ImageDataset) -> LabeledImages:
        nonlocal done
        images = torch.empty(len(dataset), 3, image_size, image_size, dtype=torch.uint8)
        for index, array in enumerate(
            prefetch.prefetch_map(lambda item: load_input(item.image, preprocess), dataset.items)
        ):
            images[index] = torch.from_numpy(array).permute(2, 0, 1)
            done += 1
            progress(done, total)
        return LabeledImages(images, torch.from_numpy(dataset.targets))

    train_images, selection_images = decode(train), decode(selection)
    test_images = decode(test) if test else selection_images
    digest = sha256()
    for split in (train_images, selection_images, test_images):
        digest.update(split.images.numpy().tobytes())
        digest.update(split.classes.numpy().tobytes())
    return SearchDataset(
        train_images,
        selection_images,
        test_images,
        train.labels.names,
        train.allow_flip,
        digest.hexdigest()[:16],
        has_test=test is not None,
    )


@dataclass(frozen=True)
class ProxyResult:
    """Top-1 accuracies of a short training as fractions; ``test_accuracy`` is None if it was not tested."""

    selection_accuracy: float
    test_accuracy: float | None
    loss: float  # cross-entropy on the selection images
    seconds: float


def train_proxy(
    arch: Arch,
    dataset: SearchDataset,
    epochs: int,
    seed: int,
    initial_weights: Mapping[str, Tensor] | None = None,
    evaluate_test: bool = True,
) -> tuple[ProxyResult, EfficientNet]:
    """Train ``arch`` for ``epochs`` and evaluate it, on one thread of this process.

    Everything random depends on ``seed`` alone; with the same seed, all networks see the same images in the same order.
    ``initial_weights`` replace random ones of the same name and shape. A training that diverges ends early.
    """
    start = time.perf_counter()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = create(arch, classes=len(dataset.class_names))
        model.load_state_dict(matching_weights(model, initial_weights or {}), strict=False)
        _train_model(model, dataset, replace(PROXY_RECIPE, epochs=epochs), seed)
    model.eval()
    selection_accuracy, loss = evaluate_proxy(model, dataset.selection)
    test_accuracy = None
    if evaluate_test:
        test_accuracy = evaluate_proxy(model, dataset.test)[0] if dataset.has_test else selection_accuracy
    return ProxyResult(selection_accuracy, test_accuracy, loss, time.perf_counter() - start), model


def matching_weights(model: EfficientNet, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of ``weights`` that have the name and shape of one in ``model``."""
    own = model.state_dict()
    return {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}


@dataclass(frozen=True)
class _CrossEntropy:
    """The loss of a proxy training, for `TrainStep`."""

    classes: Tensor
    label_smoothing: float

    def targets(self, indices: Tensor) -> Tensor:
        return self.classes[indices]

    def __call__(self, logits: Tensor, targets: Tensor, indices: Tensor, images: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing, reduction="sum")


def _train_model(model: EfficientNet, dataset: SearchDataset, recipe: recipes.Recipe, seed: int) -> None:
    train = dataset.train.resize(model.arch.resolution)
    batch_size = min(recipe.batch_size, len(train))
    rates = schedule.LRSchedule(recipe, recipe.epochs, len(train) // batch_size)
    loss = _CrossEntropy(train.classes, recipe.label_smoothing)
    step = loop.TrainStep(model, recipe, loss, distributed.SingleProcess(torch.device("cpu")))
    flip = dataset.horizontal_flip
    batches = (each for epoch in range(recipe.epochs) for each in _batches(train, batch_size, flip, seed, epoch))
    for number, (images, indices) in enumerate(batches):
        schedule.set_learning_rate(step.optimizer, rates.learning_rate_at(number))
        if not isfinite(step(images.permute(0, 2, 3, 1), indices)):
            return


def _batches(
    train: LabeledImages, batch_size: int, horizontal_flip: bool, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images of one epoch, shifted and flipped, and their indices; an incomplete batch is dropped."""
    generator = torch.Generator().manual_seed((seed << 16) + epoch)
    size = train.images.shape[-1]
    margin = max(1, size // SHIFT_DIVISOR)
    order = torch.randperm(len(train), generator=generator)
    for indices in order[: len(order) // batch_size * batch_size].split(batch_size):  # type: ignore[no-untyped-call]
        padded = F.pad(train.images[indices], (margin,) * 4)
        down, right = torch.randint(2 * margin + 1, (2, batch_size), generator=generator).tolist()
        shifted = [image[:, y : y + size, x : x + size] for image, y, x in zip(padded, down, right, strict=True)]
        if horizontal_flip:
            flips = (torch.rand(batch_size, generator=generator) < 0.5).tolist()
            shifted = [image.flip(-1) if flip else image for image, flip in zip(shifted, flips, strict=True)]
        yield torch.stack(shifted), indices


@torch.no_grad()
def evaluate_proxy(model: EfficientNet, dataset: LabeledImages) -> tuple[float, float]:
    """Return top-1 accuracy as a fraction, and mean cross-entropy."""
    correct, loss = 0, 0.0
    resized = dataset.resize(model.arch.resolution)
    for start in range(0, len(resized), EVALUATION_BATCH_SIZE):
        batch = slice(start, start + EVALUATION_BATCH_SIZE)
        x = preprocessing.normalize(resized.images[batch].permute(0, 2, 3, 1), model.preprocess)
        logits, classes = model(x), resized.classes[batch]
        correct += int((logits.argmax(1) == classes).sum())
        loss += float(F.cross_entropy(logits, classes, reduction="sum"))
    return correct / len(resized), loss / len(resized)
