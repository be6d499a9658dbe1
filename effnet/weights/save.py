"""From a network to a file, written beside its place and moved there when it is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effnet.arch.record import choice
from effnet.net import EfficientNet
from effnet.net.surgery import folded
from effnet.weights import formats
from effnet.weights.conversion import convert, counted
from effnet.weights.layouts import LAYOUTS


def save(model: EfficientNet, path: str | Path, layout: str = "effnet") -> Path:
    """Writes ``model`` to ``path`` and returns it.

    "effnet": one ``.safetensors`` that carries its whole contract. Any other layout: the tensors under that ecosystem's
    names, as ``.safetensors`` or, by the suffix ``.pth`` or ``.pt``, as PyTorch's own file. "huggingface": where it is
    called as transformers' weights are, the two files that ``from_pretrained`` asks for are written beside it. An
    existing file stays whole until the new one is. Raises ``ValueError`` for a wrong suffix, or a network whose batch
    norm was folded away; ``OSError`` where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    choice("layout", layout, tuple(LAYOUTS))
    allowed = LAYOUTS[layout].suffixes
    suffix = ".weights.h5" if path.name.endswith(".weights.h5") else path.suffix  # Keras tells the two apart
    if suffix not in allowed:
        raise ValueError(f"{path}: weights in {layout}'s layout are written to {' or '.join(allowed)}")
    if folded(model):
        raise ValueError("batch norm was folded into this copy: save the network that it was made from")
    tensors = convert(counted(model.state_dict()), model.arch, "effnet", layout, model.numerics)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    companions = formats.companions(path, model, layout)
    with replacing(path) as beside:
        formats.write(beside, suffix, tensors, model, layout)
    for name, text in companions.items():
        with replacing(path.with_name(name)) as beside:
            beside.write_text(text, encoding="utf-8")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes ``path``'s place when the block ends well, and is gone otherwise.

    Raises ``OSError`` with one clear sentence where the disk is full or the folder is not to be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        mode = beside.stat().st_mode
        yield beside
        beside.chmod(mode)  # safetensors makes its files for the owner alone
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise OSError(f"{path} could not be written: {reason}; what was there before is untouched") from error
    finally:
        beside.unlink(missing_ok=True)


def _reason(error: Exception) -> str | None:
    """Why a write failed, in words; None where it was not the writing that failed."""
    cause: BaseException | None = error
    while cause is not None:  # torch and safetensors put errors of their own over the system's, or its text into them
        number = cause.errno if isinstance(cause, OSError) else None
        if number == errno.ENOSPC or "No space left" in str(cause):
            return "the disk is full"
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return "the folder does not allow it"
        cause = cause.__context__
    return (error.strerror or str(error)) if isinstance(error, OSError) else None
