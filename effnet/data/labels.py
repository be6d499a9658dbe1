"""What labels mean as they stand in somebody's files: numbers, names, several of them, or values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.metadata import Labels

Label = int | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class LabelEncoder:
    """What the labels mean, by ``labels`` and the number that each of their names has. ``source``: who has them all."""

    labels: Labels
    class_to_index: dict[str, int]
    source: str

    @classmethod
    def fit(
        cls, raw_labels: Iterable[RawLabel], names: Sequence[str] | None, named_by: str, found_in: str
    ) -> LabelEncoder:
        """From all labels that there are; ``names`` of the classes where ``named_by`` has them.

        Whole numbers and texts are classes, lists of them classes of which any may be right; numbers with a point, and
        lists of such, are values. Raises ``ValueError`` for a mixture, for a number that has no name, and for fewer
        than two classes.
        """
        given = [one for one in raw_labels if one is not None]
        several = [isinstance(one, list) for one in given]
        flat: list[Any] = [part for one in given for part in (one if isinstance(one, list) else [one])]
        kinds = {type(part) for part in flat}
        if any(several) != all(several) or not kinds <= {int, float, str, bool} or kinds >= {float, str}:
            raise ValueError(f"the labels in {found_in} are of several kinds: give each picture one of the same kind")
        if float in kinds:
            width = len(given[0]) if isinstance(given[0], list) else 1
            chosen = tuple(names) if names and len(names) == width else tuple(f"value {n + 1}" for n in range(width))
            return cls(Labels(chosen if width > 1 or names else ("value",), "regression"), {}, named_by)
        if names is None:
            numeric = kinds <= {int, bool}
            chosen = tuple(map(str, range(max(flat, default=0) + 1) if numeric else sorted(set(map(str, flat)))))
        else:
            chosen = tuple(names)
        kind = "multilabel" if any(several) else "classification"
        if kind == "classification" and len(chosen) < 2:
            raise ValueError(f"{found_in} has only one class, {chosen[0]!r}: a classifier needs at least two")
        source = named_by if names is not None else found_in
        return cls(Labels(chosen, kind), {name: number for number, name in enumerate(chosen)}, source)

    def encode(self, raw: RawLabel, name: str) -> Label:
        """The label of an item whose file ``name`` says ``raw``. Raises ``ValueError`` where it is none of those."""
        if self.labels.task == "regression":
            values = tuple(float(one) for one in (raw if isinstance(raw, list) else [raw]))  # type: ignore[arg-type]
            if len(values) != len(self.labels.names):
                raise ValueError(f"{name} has {len(values)} values, others have {len(self.labels.names)}")
            return values
        if self.labels.task == "multilabel":
            assert isinstance(raw, list)
            return tuple(sorted({self._encode_class(one, name) for one in raw}))
        return self._encode_class(raw, name)

    def placeholder(self) -> Label:
        """Some label of the kind, for what stands in a picture's place."""
        if self.labels.task == "regression":
            return (0.0,) * len(self.labels.names)
        return () if self.labels.task == "multilabel" else 0

    def _encode_class(self, raw: Any, name: str) -> int:
        if isinstance(raw, str):
            if raw in self.class_to_index:
                return self.class_to_index[raw]
        elif 0 <= raw < len(self.labels.names):
            return int(raw)
        raise ValueError(f"{name} has the label {raw!r}, which {self.source} has not")


RawLabel = int | float | str | list[Any] | None  # a label as it stands in a shard; None where there is none
