"""Names of classes: ImageNet's, those in a file, and which of a network's outputs the classes of a dataset are.

ImageNet's synsets and names lie in ``imagenet_classes.txt``, a class per line in the order of every published network,
that of the sorted synsets. The names are torchvision's, which are all different ("crane", "crane bird"; "cardigan", and
the dog "Cardigan"), kept here because importing torchvision takes a second and needs a matching build.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from effnet.arch.serde import parse_json
from effnet.metadata import Labels

BACKGROUND = "background"  # the first of 1001 outputs of TensorFlow's networks
IMAGENET_CLASSES = 1000

_SYNSET = re.compile(r"(n\d{8})(?:[\s_,:-]+(.+))?")  # n01440764, n02085620-Chihuahua, n01440764 tench, Tinca tinca
_NUMBERED_LINE = re.compile(r"\{?\s*(\d+)\s*[:,;\s]\s*(.+?),?\s*\}?")  # 0: tench; {0: 'tench',
_NAME_KEYS = ("label_names", "id2label", "names", "labels", "classes", "class_to_idx")  # in a JSON object


@cache
def imagenet_table() -> tuple[tuple[str, str], ...]:
    """Return (synset, name) of ImageNet-1k's classes in order: ``("n01440764", "tench")`` first."""
    text = files("effnet.data").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return tuple((synset, name) for synset, name in pairs)


def imagenet_labels(outputs: int = IMAGENET_CLASSES) -> Labels:
    """Return ImageNet's labels for 1000 outputs, and for 1001, "background" first. ``ValueError`` for other numbers."""
    background = outputs - IMAGENET_CLASSES
    if background not in (0, 1):
        raise ValueError(f"ImageNet has {IMAGENET_CLASSES} classes, not {outputs}")
    return Labels((*([BACKGROUND] * background), *(name for _, name in imagenet_table())))


def find_imagenet_class(text: str) -> int | None:
    """Return the index of the class of ImageNet that ``text`` names, or None.

    It may be a synset, also with a name after it, or the name: as it is written here, or else without regard to case,
    spaces and punctuation; of several between commas the first counts.

    Example:
        >>> [find_imagenet_class(text) for text in ("n01440764", "Hot_Dog", "tench, Tinca tinca", "unicorn")]
        [0, 934, 0, None]
    """
    by_synset, by_name, by_letters = _imagenet_indices()
    match = _SYNSET.fullmatch(text)
    if match:
        return by_synset.get(match[1])
    found = by_name.get(text)
    return found if found is not None else by_letters.get(_letters(text.partition(",")[0]))


@cache
def _imagenet_indices() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    by_synset, by_name = ({pair[part]: index for index, pair in enumerate(imagenet_table())} for part in (0, 1))
    return by_synset, by_name, _index_unique(map(_letters, by_name))


def _letters(text: str) -> str:
    """Return the letters and digits alone, in lower case; the text itself if it has none."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", text).casefold()) or text


def _index_unique(texts: Iterable[str]) -> dict[str, int]:
    """Return text → index, without those that occur several times."""
    places: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        places.setdefault(text, []).append(index)
    return {text: found[0] for text, found in places.items() if len(found) == 1}


def match_classes(names: Sequence[str], known: Sequence[str], outputs: int) -> tuple[list[int | None], str]:
    """Return which of the network's outputs each class of a dataset is, None where unknown, and how they were matched.

    They are matched in the first of these ways in which most classes are found: by equal names; as classes of ImageNet
    ("synset": n01440764 is an output called tench); by names without regard to case and punctuation; by "number", for
    folders called 0, 1, … 934. Numbers count a network's outputs, without "background" if that is the first.

    Args:
        names: of the dataset's classes.
        known: names of the network's outputs in order; may be empty.
        outputs: how many outputs the network has.

    Example:
        >>> match_classes(["n02123045", "n01440764"], imagenet_labels().names, 1000)
        ([281, 0], 'synset')
    """
    first = int(bool(known) and known[0] == BACKGROUND)

    def by_number(name: str) -> int | None:
        index = int(name) + first if name.isascii() and name.isdigit() else outputs
        return index if index < outputs else None

    exact, loose = _index_unique(known), _index_unique(map(_letters, known))
    imagenet = {index: place for place, index in enumerate(map(find_imagenet_class, known)) if index is not None}
    ways: dict[str, Callable[[str], int | None]] = {
        "name": exact.get,
        "synset": lambda name: imagenet.get(find_imagenet_class(name)),  # type: ignore[arg-type]
        "similar name": lambda name: loose.get(_letters(name)),
        "number": by_number,
    }
    found = {way: [find(name) for name in names] for way, find in ways.items()}
    best = max(found, key=lambda way: sum(index is not None for index in found[way]))  # the first of equally good ones
    return found[best], best


def describe_similar_names(names: Iterable[str]) -> list[str]:
    """Return a sentence per group of classes that differ in letter case, spaces or the Unicode form only: typos, often.

    Example:
        >>> describe_similar_names(["Disc", "disc", "thing"])
        ["the classes 'Disc' and 'disc' differ in their spelling only: merge them if they are one"]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        key = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", unicodedata.normalize("NFKC", name).casefold().strip())
        groups.setdefault(key, []).append(name)
    return [
        f"the classes {' and '.join(map(repr, group))} differ in their spelling only: merge them if they are one"
        for group in groups.values()
        if len(group) > 1
    ]


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read the names of a network's outputs in order.

    - a text: a name per line; or numbered lines (``0: tench``), sorted by number; a synset before a name is left out;
    - ``.json``: a list of names; an object of numbers and names, or of names and numbers; an object that holds such
      under ``label_names`` (timm), ``id2label`` (transformers) or ``class_to_idx``; Keras' ``imagenet_class_index``.

    A name that occurs again gets its number behind it: ImageNet's two cranes are "crane" and "crane (517)".

    Raises:
        ValueError: there are no names in the file, or its numbers are not 0, 1, 2, …
        FileNotFoundError: there is no such file.

    Example:
        >>> model.labels = effnet.Labels(read_labels("labels.txt"))
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text: labels are a name per line, or JSON") from None
    names = _parse_json(path, text) if path.suffix.lower() == ".json" else _parse_lines(path, text)
    if not names:
        raise ValueError(f"{path} is empty: labels are a name per line, or JSON")
    seen: set[str] = set()
    distinct = []
    for index, name in enumerate(names):
        distinct.append(f"{name} ({index})" if name in seen else name)
        seen.add(name)
    return tuple(distinct)


def rename_outputs(known: Labels, outputs: int, names: Sequence[str]) -> Labels:
    """Return ``known`` with other names. Raises ``ValueError`` unless there is one for each of a network's outputs."""
    if len(names) != outputs:
        hint = f'; if its first output is not one of them, put "{BACKGROUND}" first' * (outputs == len(names) + 1)
        raise ValueError(f"{len(names):,} labels were given for a network with {outputs:,} outputs{hint}")
    return replace(known, names=tuple(names))


def _parse_lines(path: Path, text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t{}")]
    numbered = [_NUMBERED_LINE.fullmatch(line) for line in lines]
    numbers = {int(match[1]): match[2].strip("'\"") for match in numbered if match}
    if sorted(numbers) == list(range(len(lines))):  # else the number is part of the name, as in "3 aces"
        lines = [numbers[index] for index in range(len(lines))]
    synsets = [_SYNSET.fullmatch(line) for line in lines]
    return [match[2] for match in synsets if match] if all(match and match[2] for match in synsets) else lines


def _parse_json(path: Path, text: str) -> list[str]:
    data = parse_json(text, path)
    key = next((key for key in _NAME_KEYS if isinstance(data, dict) and isinstance(data.get(key), (list, dict))), None)
    data = data if key is None else data[key]
    if isinstance(data, dict) and all(isinstance(value, int) for value in data.values()):
        data = {number: name for name, number in data.items()}
    if isinstance(data, dict):
        data = _sort_by_number(path, data)
    if not isinstance(data, list):
        raise ValueError(f"{path} holds no names: labels in JSON are a list, or an object of numbers and names")
    return [str(value[-1] if isinstance(value, list) and value else value) for value in data]


def _sort_by_number(path: Path, data: Mapping[Any, Any]) -> list[Any]:
    numbers = {int(key): value for key, value in data.items() if str(key).isdigit()}
    if sorted(numbers) != list(range(len(data))):
        raise ValueError(f"{path}: the numbers of its labels must be 0 to {len(data) - 1}, each once")
    return [numbers[index] for index in range(len(data))]
