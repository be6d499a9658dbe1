"""PyTorch's files: ``.safetensors`` (also this package's own) and ``.pth``, opened without running anything in them."""

import errno
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from effnet.data.storage import embedded_digest
from effnet.data.storage.archive import DamagedArchiveError
from effnet.net import EfficientNet
from effnet.weights import module_evidence
from effnet.weights.formats import METADATA_KEY, Checkpoint
from effnet.weights.formats.stand_ins import StandIn, StoredTensor, UnreadableTensor
from effnet.weights.formats.torch_file import open_torch_file


def read_safetensors(path: Path) -> Checkpoint:
    """Read tensors, memory-mapped, and header of a ``.safetensors``. Raises ``ValueError`` if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: a damaged weights file ({error})") from None


def write_safetensors(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write ``tensors`` for any reader, without our metadata."""
    save_file(tensors, path, metadata={"format": "pt"})


def write_model_file(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write this package's own file: ``tensors``, with the metadata of ``model`` in the header, and its digest."""
    save_file(tensors, path, metadata={METADATA_KEY: model.metadata.to_json()})
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    # Not by `save_file`, which writes several entries in random order: equal networks give equal bytes
    entry = f'"{embedded_digest.DIGEST_KEY}":"{embedded_digest.PLACEHOLDER}",'.encode()
    header = content[8:end].rstrip().replace(b'"__metadata__":{', b'"__metadata__":{' + entry, 1)
    header += b" " * (-len(header) % 8)
    path.write_bytes(b"".join((len(header).to_bytes(8, "little"), header, memoryview(content)[end:])))
    embedded_digest.seal(path)


# .pth ----------------------------------------------------------------------------------------------------------------


def read_pytorch(path: Path) -> Checkpoint:
    """Read every tensor and plain value of a ``.pth``, whatever is in it: state dicts, modules, Learners, TorchScript.

    Nothing in the file is run or imported: `unpickler` reads it. Names are those of `flatten_content`.

    Raises:
        ValueError: the file is damaged, or contains no tensors by name.
        OSError: it cannot be read.
    """
    try:
        with open_torch_file(path) as file:
            found = flatten_content(file.content)
            tensors = file.read_tensors(found.tensors)
            code = file.code
    except DamagedArchiveError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of an archive's member before the file's start
            raise
        raise ValueError(f"{path}: not a weights file ({str(error).partition(chr(10))[0]})") from None
    tensors.pop("", None)  # a file that is one tensor
    if not tensors:
        frozen = ": TorchScript whose weights were frozen into constants; save the network before torch.jit.freeze"
        raise ValueError(f"{path}: no tensors by name in it{'' if code is None else frozen}")
    values = found.values if code is None else found.values | module_evidence.read_script(code, found.values)
    return Checkpoint(tensors, values=values)


def write_pytorch(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write ``tensors`` as a ``.pth``."""
    with path.open("wb") as file:  # given a path, torch writes its name into the file
        torch.save(tensors, file)


# Names of everything in a file ---------------------------------------------------------------------------------------

# Names of more parts or characters are left out: no network has them, and a file may contain itself
MAX_NAME, MAX_PART, MAX_DEPTH = 1000, 300, 48
MAX_TENSORS, MAX_VISITS = 50_000, 1_000_000
MAX_VALUES, MAX_VALUE_LENGTH = 50_000, 25_000  # ImageNet-21k has 21,843 names
MAX_SHARED = 8
_Node = dict[Any, Any] | list[Any] | tuple[Any, ...] | StandIn


@dataclass(frozen=True)
class Contents:
    """Tensors, still in the file, and plain values under one dotted name each."""

    tensors: dict[str, StoredTensor | UnreadableTensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def flatten_content(content: Any) -> Contents:
    """Name everything in a file: ``state_dict.model.conv_stem.weight``, ``args.bn_eps``, ``0.blocks.0.…``.

    Keys, indices and names of attributes are joined with dots. A module's entries have the names of ``state_dict()``,
    once for each place that it has; anything else is listed in one place only, the one of the fewest parts. A module's
    class is the value ``NAME.__class__``. States of optimizers are left out.

    Raises:
        ValueError: it has more tensors than any checkpoint.
    """
    found, seen = Contents(), set()
    waiting: deque[tuple[str, Any, int]] = deque([("", content, 0)])
    left = MAX_VISITS

    def take(name: str, entries: Iterator[tuple[Any, Any]], depth: int) -> list[tuple[str, Any, int]]:
        nonlocal left
        looked_at = [*islice(entries, left)] if depth < MAX_DEPTH else []
        left = max(left - len(looked_at), 0)
        return [*_name_parts(name, looked_at, depth)]

    while waiting:  # what is nested least comes first
        name, node, depth = waiting.popleft()
        if isinstance(node, (StoredTensor, UnreadableTensor)):
            found.tensors.setdefault(name, node)
            if len(found.tensors) > MAX_TENSORS:
                raise ValueError(f"more than {MAX_TENSORS:,} tensors")
        elif _is_module(node):
            left = max(left - len(node.attributes), 0)  # also those that are not listed
            waiting.extendleft(reversed(take(name, _list_module(node), depth)))  # all of it before the next
        elif isinstance(node, (dict, list, tuple, StandIn)) and (_is_short(node) or id(node) not in seen):
            seen.add(id(node))
            if _is_plain(node):
                _add_value(found.values, name, node)
            elif not _is_optimizer(node):
                waiting.extend(take(name, _list_entries(node), depth))
        elif _is_plain_value(node):
            _add_value(found.values, name, node)
    return found


def _name_parts(name: str, parts: Iterable[tuple[Any, Any]], depth: int) -> Iterator[tuple[str, Any, int]]:
    for part, value in parts:
        text = part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
        full = f"{name}.{text[:MAX_PART]}" if name else text[:MAX_PART]
        if len(full) <= MAX_NAME:
            yield full, value, depth + 1


def _is_short(node: Any) -> bool:
    """Return whether it is a few plain values, such as a padding, which many modules share."""
    return isinstance(node, tuple) and len(node) <= MAX_SHARED and _is_plain(node)


def _is_plain(node: Any) -> bool:
    """Return whether it is a value, or some in a row, of a length that settings and names have."""
    if isinstance(node, (list, tuple)):
        return 0 < len(node) <= MAX_VALUE_LENGTH and all(map(_is_plain_value, node))
    return _is_plain_value(node)


def _is_plain_value(node: Any) -> bool:
    if isinstance(node, (str, int)):
        return len(node) <= MAX_VALUE_LENGTH if isinstance(node, str) else abs(node) < 2**63
    return node is None or isinstance(node, float)


def _add_value(values: dict[str, Any], name: str, value: Any) -> None:
    if len(values) < MAX_VALUES:
        values.setdefault(name, tuple(value) if isinstance(value, list) else value)


def _is_optimizer(node: _Node) -> bool:
    """Return whether it is an optimizer of PyTorch or fastai, or the state of one."""
    entries = node if isinstance(node, dict) else node.attributes if isinstance(node, StandIn) else {}
    return "state" in entries and ("param_groups" in entries or "hypers" in entries)


def _is_module(node: Any) -> bool:
    """Return whether it is an ``nn.Module``, or one of TorchScript, whose tensors are plain attributes."""
    if not isinstance(node, StandIn):
        return False
    modules, parameters = node.attributes.get("_modules"), node.attributes.get("_parameters")
    return node.kind.startswith("__torch__.") or (isinstance(modules, dict) and isinstance(parameters, dict))


def _list_module(node: StandIn) -> Iterator[tuple[str, Any]]:
    """Yield a module's class, tensors, modules and other attributes that are not PyTorch's own."""
    attributes = node.attributes
    yield "__class__", node.kind.removeprefix("__torch__.")
    listed = attributes.get("_non_persistent_buffers_set")
    temporary = listed if isinstance(listed, list) and len(listed) <= MAX_SHARED * MAX_SHARED else []
    for group in ("_parameters", "_buffers", "_modules"):
        entries = attributes.get(group)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            if not (group == "_buffers" and name in temporary) and value is not None:
                yield name, value
    for name, value in attributes.items():
        if name == "_hparams" or not (name.startswith("_") or name == "training"):
            yield name, value


def _list_entries(node: _Node) -> Iterator[tuple[Any, Any]]:
    """Yield the entries of a container, or of what stands for an object."""
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, (list, tuple)):
        yield from enumerate(node)
    else:
        yield from enumerate(node.arguments)
        yield from node.attributes.items()
        yield from (node.items or {}).items()
        yield from enumerate(node.entries or ())
