"""Labelled pictures as hundreds of short trainings share them: decoded once, small, all in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from effnet.data import ImageDataset, Splits, holdout, load_input, open_data
from effnet.data.prefetch import prefetch_map
from effnet.data.storage.atomic_write import atomic_write
from effnet.metadata import Preprocess

SELECTION_FRACTION = 0.2  # of the training pictures: what a search chooses by
MAX_IMAGE_BYTES = 8e9  # bytes of decoded pictures


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Pictures uint8 (N, 3, side, side) and their classes int64 (N,)."""

    images: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def resize(self, side: int) -> LabeledImages:
        """The same pictures ``side`` pixels a side."""
        return LabeledImages(_resize_images(self.images, side), self.classes)


@dataclass(frozen=True, eq=False)
class SearchDataset:
    """What a search learns from, what it chooses by, and what it never looks at before all is chosen.

    ``judge`` are the pictures of the data's val or test split; where it has neither they are those chosen by.
    """

    train: LabeledImages
    selection: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
    horizontal_flip: bool
    fingerprint: str  # of all pixels and classes
    has_test: bool  # whether ``judge`` are other pictures than ``select``

    @property
    def image_size(self) -> int:
        """Pixels a side of the stored pictures: no network sees more."""
        return int(self.train.images.shape[-1])

    def save(self, path: Path) -> None:
        """Writes them into one file, for other processes."""
        parts = {"fit": self.train, "select": self.selection} | ({"judge": self.test} if self.has_test else {})
        tensors = {f"{name}.pictures": part.images for name, part in parts.items()}
        tensors |= {f"{name}.classes": part.classes for name, part in parts.items()}
        about = {"names": self.class_names, "mirror": self.horizontal_flip, "fingerprint": self.fingerprint}
        with atomic_write(path) as beside:
            save_file(tensors, beside, {"about": json.dumps(about)})

    @classmethod
    def load(cls, path: Path) -> SearchDataset:
        """What `save` wrote."""
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            held = {key.partition(".")[0] for key in file.keys()}  # noqa: SIM118 – it is no dict
            parts = {
                name: LabeledImages(file.get_tensor(f"{name}.pictures"), file.get_tensor(f"{name}.classes"))
                for name in held
            }
        fit, select, judge = parts["fit"], parts["select"], parts.get("judge", parts["select"])
        return cls(fit, select, judge, tuple(about["names"]), about["mirror"], about["fingerprint"], "judge" in parts)


def load_dataset(
    source: str | Path | Splits,
    image_size: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SearchDataset:
    """The pictures of ``source`` (all that `effnet.data.open_data` takes), ``side`` pixels a side.

    The short side becomes ``side`` and the middle is kept; smaller pictures are enlarged. A fifth of the training
    pictures is held out to choose by. Raises ``ValueError`` where pictures have several labels or values, where there
    are none to learn from, and where they would not fit in memory; ``PictureError`` for one that cannot be read.
    """
    splits = source if isinstance(source, Splits) else open_data(source)
    if splits.train is None:
        raise ValueError("the data has no training pictures: give a folder with train/, or with one folder a class")
    if splits.train.labels.task != "classification":
        raise ValueError("a search compares top-1 accuracies: it needs pictures of one class each")
    fit, select = holdout(splits.train, SELECTION_FRACTION, seed)
    judge = splits.val or splits.test
    total = len(splits.train) + len(judge or ())
    if total * 3 * image_size**2 > MAX_IMAGE_BYTES:
        raise ValueError(
            f"{total:,} pictures of {image_size} pixels a side do not fit in memory: give fewer pictures, or a smaller base"
        )
    done = 0

    def decoded(pictures: ImageDataset) -> LabeledImages:
        nonlocal done
        to_side = Preprocess(size=(image_size, image_size), crop_fraction=1.0, decode="reduced")
        found = torch.empty(len(pictures), 3, image_size, image_size, dtype=torch.uint8)
        for place, array in enumerate(prefetch_map(lambda item: load_input(item.image, to_side), pictures.items)):
            found[place] = torch.from_numpy(array).permute(2, 0, 1)
            done += 1
            progress(done, total)
        return LabeledImages(found, torch.from_numpy(pictures.targets))

    learned, chosen_by = decoded(fit), decoded(select)
    judged = decoded(judge) if judge else chosen_by
    mark = sha256()
    for part in (learned, chosen_by, judged):
        mark.update(part.images.numpy().tobytes())
        mark.update(part.classes.numpy().tobytes())
    return SearchDataset(
        learned, chosen_by, judged, fit.labels.names, fit.allow_flip, mark.hexdigest()[:16], has_test=judge is not None
    )


@lru_cache(maxsize=6)
def _resize_images(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    whole = torch.empty(len(images), 3, side, side, dtype=torch.uint8)
    for start in range(0, len(images), 1024):
        some = images[start : start + 1024]
        whole[start : start + 1024] = F.interpolate(some, (side, side), mode="bilinear", antialias=True)
    return whole
