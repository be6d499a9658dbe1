"""Configuration of a training run."""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from effnet.arch import Arch, resolve_arch, serde
from effnet.data import Splits
from effnet.metadata import COLOR_CHANNELS
from effnet.training import callbacks, recipes

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Resources:
    """Hardware settings of a run: they change its time and memory, hardly its result.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or None for the fastest available.
        precision: ``"float32"``, ``"bfloat16"``, ``"float16"``, or None for the device's fastest.
        accumulation_steps: Gradient accumulation steps per batch; 0 for as few as fit in memory.
        gradient_checkpointing: Recompute blocks in the backward pass: half the memory, up to twice the time.
        torch_compile: Use ``torch.compile``; None to measure whether it pays off.
        workers: Data loading processes; None for one per core, at most 8.
        cache: Keep decoded images on disk as long as there is room.
    """

    device: str | None = None
    precision: str | None = None
    accumulation_steps: int = 0
    gradient_checkpointing: bool = False
    torch_compile: bool | None = None
    workers: int | None = None
    cache: bool = False

    def __post_init__(self) -> None:
        serde.check_int("accumulation_steps", self.accumulation_steps, 0, serde.MAX_BATCH_SIZE)
        if self.workers is not None:
            serde.check_int("workers", self.workers, 0, serde.MAX_PROCESSES)


_READING = ("prefix", "padding", "bn_eps")  # how the file of weights is read


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that was asked of a run; the fields are the arguments of `effnet.train`."""

    data: str | Path | Splits
    recipe: str | recipes.Recipe | None = None
    out: Path
    model: str | Arch | None = None
    weights: str | Path | None = None
    prefix: str | None = None
    padding: str | None = None
    bn_eps: float | None = None
    epochs: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    learning_rate: float | str | None = None
    seed: int = 0
    image_size: int | tuple[int, int] | None = None
    color: str | None = None
    bits: int | None = None
    select_on: str = "holdout"
    teacher: str | Path | None = None
    resume: bool = False
    strict: bool = False
    resources: Resources = field(default_factory=Resources)
    loggers: tuple[str, ...] | None = None
    callback: callbacks.Callback = field(default_factory=callbacks.Callback)
    command: str = ""

    def __post_init__(self) -> None:
        if self.image_size is not None:
            serde.check_size(self.image_size, "image_size")
        if self.color is not None:
            serde.check_choice("color", self.color, tuple(COLOR_CHANNELS))
        serde.check_choice("select_on", self.select_on, ("holdout", "val"))
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("epochs cannot be combined with minutes")
        serde.check_int("seed", self.seed, 0, serde.MAX_SEED)
        if self.epochs is not None:
            serde.check_int("epochs", self.epochs, 0, serde.MAX_EPOCHS)
        if self.minutes is not None:
            serde.check_float("minutes", self.minutes, 0, serde.MAX_MINUTES, exclusive=True)

    @cached_property
    def resolved_recipe(self) -> recipes.Recipe:
        """The recipe with the batch size and learning rate that were asked for."""
        return recipes.resolve_recipe(self.recipe, self.weights, self.epochs, self.batch_size, self.learning_rate)

    @property
    def data_source(self) -> str:
        """The data as the user named it; empty for `Splits`."""
        return "" if isinstance(self.data, Splits) else str(self.data)

    def to_settings(self, data: str, precision: str, images: str = "") -> dict[str, Any]:
        """Return what a resumed run must share with the run it continues, as plain data for JSON.

        ``data`` says where the images were, for a reader; ``images`` is the digest of their list, by which they are
        compared (see `RunDir.claim`). Files are compared by their digests, too.
        """
        digests = {"weights_digest": digest_weights(self.weights), "teacher_digest": digest_weights(self.teacher)}
        return {
            "data": data,
            "images": images,
            **{name: digest for name, digest in digests.items() if digest},
            "recipe": self.resolved_recipe.to_dict(),
            "model": self.model and resolve_arch(self.model).to_dict(),
            "weights": None if self.weights is None else str(self.weights),
            **{name: value for name in _READING if (value := getattr(self, name)) is not None},
            "epochs": self.epochs,
            "minutes": self.minutes,
            "seed": self.seed,
            "image_size": self.image_size and serde.check_size(self.image_size),
            **({"bits": self.bits} if self.bits else {}),
            **({"color": self.color} if self.color else {}),  # older runs, which do not have it, can be resumed
            "select_on": self.select_on,
            "find_learning_rate": self.learning_rate == "find",
            "teacher": self.teacher and str(self.teacher),
            "precision": precision,
            "cache": self.resources.cache,
        }


def digest_weights(source: object) -> str | None:
    """Return a digest of a file of weights, of the names and sizes of the files in a folder; None for anything else."""
    path = Path(source) if isinstance(source, (str, Path)) else Path()
    if path.is_file():
        with path.open("rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
    if source and path.is_dir():
        files = sorted(file for file in path.glob("*") if file.is_file())
        listing = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
        return blake2b(listing.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return None
