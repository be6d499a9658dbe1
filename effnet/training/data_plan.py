"""Which images a run trains on, which it makes its choices by, and which it only reports on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b, sha256

from effnet.data import ImageDataset, Splits, check_images, dataset, duplicates, holdout
from effnet.tasks import task_of
from effnet.timing.machine import count_cores
from effnet.training.callbacks import Callback
from effnet.training.config import TrainConfig
from effnet.training.run_dir import ImageRow

TEST_FRACTION = 0.2  # of all images, if the data has neither a validation nor a test set
MAX_IMAGES_COMPARED_BY_PIXELS = 5_000  # duplicates among more images are found by the files' bytes, which is fast


Digests = dict[int, bytes]  # of images' contents by the id of ``Item.image``, which stays the same in every subset


@dataclass(frozen=True, eq=False)
class DataPlan:
    """The images of a run: ``train``, ``selection`` for every choice, ``test_sets`` that no choice has seen."""

    train: ImageDataset
    selection: ImageDataset
    test_sets: dict[str, ImageDataset]
    skipped: tuple[str, ...] = ()
    probe_on_selection: bool = True  # the selection images are part of the training set: the final probe may use them
    digests: Digests = field(default_factory=dict)  # of all files' contents
    label_conflicts: tuple[duplicates.LabelConflict, ...] = ()  # the same image under several labels

    @property
    def splits(self) -> dict[str, ImageDataset]:
        """All images by the name of their split."""
        return {"train": self.train, "selection": self.selection, **self.test_sets}

    def summary(self) -> str:
        """Return one line: how many images are for what."""
        test = ", ".join(f"{len(images)} {name}" for name, images in self.test_sets.items())
        return (
            f"{len(self.train)} training, {len(self.selection)} selection and {test} images; "
            f"{len(self.train.labels.names)} {task_of(self.train.labels.task).plural}"
        )

    def rows(self) -> list[ImageRow]:
        """Return the name, label, split, size and digest of every image."""
        return list_rows(self.splits, self.digests)


def make_plan(splits: Splits, config: TrainConfig, callback: Callback) -> DataPlan:
    """Return the plan for ``splits``; every image is read once to see that it can be.

    Validation and test sets are only reported on. Choices are made on ``selection_fraction`` of the training set,
    unless ``select_on="val"``. Without a validation or test set, a stratified fifth is held out as one.
    """
    skipped: list[str] = []
    by_pixels = len(training_images(splits)) <= MAX_IMAGES_COMPARED_BY_PIXELS
    fingerprints, contents = dataset.Fingerprints(), dataset.Fingerprints()

    def keep_readable(images: ImageDataset) -> ImageDataset:
        pixels = fingerprints if by_pixels else None
        readable, errors = check_images(images, count_cores(), fingerprints=pixels, contents=contents)
        if errors and config.strict:
            raise errors[0]
        skipped.extend(map(str, errors))
        return readable

    train = keep_readable(training_images(splits))
    test_sets = {name: keep_readable(images) for name, images in splits.available.items() if name != "train"}
    if skipped:
        count = "1 image is" if len(skipped) == 1 else f"{len(skipped)} images are"
        callback.on_message(f"{count} unreadable and skipped: {'; '.join(skipped[:5])}")
    if not by_pixels:
        fingerprints = contents
    digests = {id(item.image): digest for item, digest in contents.items()}
    checked = Splits(train, test_sets.get("val"), test_sets.get("test"))
    conflicts = duplicates.find_label_conflicts(checked.available, fingerprints)
    for message in (
        *duplicates.describe_split_overlap(checked, fingerprints=fingerprints),
        *duplicates.describe_label_conflicts(conflicts),
    ):
        callback.on_message(message)
    # Duplicates stay together, or choices would be made on images that were trained on
    train = duplicates.group_duplicates(train, duplicates.find_duplicates(train, fingerprints=fingerprints))
    if config.select_on == "val":
        if "val" not in test_sets:
            raise ValueError("--select-on val requires a validation set (a folder val/ in the data)")
        selection = test_sets.pop("val")
        if not test_sets:
            callback.on_message("selection on val: its metrics are not those of unseen images")
            test_sets = {"val (selection)": selection}
        return DataPlan(
            train,
            selection,
            test_sets,
            tuple(skipped),
            probe_on_selection=False,
            digests=digests,
            label_conflicts=tuple(conflicts),
        )
    if not test_sets:
        train, test_sets["holdout"] = holdout(train, TEST_FRACTION, config.seed)
        callback.on_message(f"no validation set: {len(test_sets['holdout'])} images are held out for the report")
    train, selection = holdout(train, config.resolved_recipe.selection_fraction, config.seed + 1)
    return DataPlan(train, selection, test_sets, tuple(skipped), digests=digests, label_conflicts=tuple(conflicts))


def training_images(splits: Splits) -> ImageDataset:
    """Return the training set. Raises ``ValueError`` if there is none, or all its images are of one class."""
    if splits.train is None:
        raise ValueError("the data has no training images: pass a folder with train/, or with one folder per class")
    names = splits.train.labels.names
    if splits.train.labels.task == "classification" and len(names) == 1:
        raise ValueError(f"the data has only one class, {names[0]!r}: a classifier needs at least two")
    return splits.train


def fingerprint_splits(splits: Mapping[str, ImageDataset]) -> str:
    r"""Return the SHA-256 of all images' splits, names and labels, by which two runs can tell that their data is equal.

    It is taken over lines ``split\tname\tlabel\n`` in UTF-8, sorted. ``label`` is the class name, several joined by
    ``|``, or the values as Python writes them. Neither the order of the images counts nor what the files contain.
    """
    lines = (
        f"{split}\t{item.name}\t{_exact_label(item, images)}\n".encode("utf-8", "surrogatepass")
        for split, images in splits.items()
        for item in images.items
    )
    return sha256(b"".join(sorted(lines))).hexdigest()


def list_rows(splits: Mapping[str, ImageDataset], digests: Digests | None = None) -> list[ImageRow]:
    """Return what is recorded of every image: its name, label and split, its size and digest where these are known."""
    rows = []
    for split, images in splits.items():
        for item in images.items:
            size, digest = duplicates.file_size(item), (digests or {}).get(id(item.image), b"")
            rows.append(
                ImageRow(item.name, images.format_label(item), split, str(size) if size >= 0 else "", digest.hex())
            )
    return rows


def digest_list(splits: Mapping[str, ImageDataset]) -> str:
    r"""Return a digest of all images' splits, names, labels and sizes in their order, wherever their folder lies.

    It is BLAKE2b over lines ``split\tname\tlabel\tbytes\n``. Contents are not read: `DataPlan.rows` has their digests.
    """
    state = blake2b(digest_size=16)
    for split, images in splits.items():
        for item in images.items:
            line = f"{split}\t{item.name}\t{_exact_label(item, images)}\t{duplicates.file_size(item)}\n"
            state.update(line.encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def _exact_label(item: dataset.Item, images: ImageDataset) -> str:
    if isinstance(item.label, tuple) and images.labels.task == "regression":
        return "|".join(map(repr, item.label))
    return "|".join(map(images.labels.name, item.classes))
