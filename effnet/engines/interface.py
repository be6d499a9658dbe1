"""What an exported file takes and gives, and how it says so in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from effnet.arch.record import Record, choice, whole
from effnet.contract import Contract, Labels

INPUTS = ("pixels", "floats", "normalised")
OUTPUTS = ("probabilities", "logits", "values")
ANSWERS = MappingProxyType({"one": "probabilities", "any": "probabilities", "value": "values"})  # by the labels' kind
CONTRACT, INTERFACE = "effnet", "effnet.interface"  # the keys of a file's metadata; both values are JSON
SIDE_MOST = 8192  # pixels: maps of more would fill any memory


@dataclass(frozen=True)
class Interface(Record):
    """What an exported file takes and gives.

    ``input``: "pixels", uint8 (N, H, W, 3) of 0 … 255, as pictures come; "floats", the same as float32; "normalised",
    float32 (N, 3, H, W) that has been through mean and std. ``size``: (height, width), None for any.
    ``output``: float32 (N, classes): "probabilities", by a softmax where exactly one label is right and by a sigmoid
    each where any may be; "logits", of which they are made; or "values", for labels that are such: logits as they are.
    ``embedding``: whether a second output "embedding", float32 (N, head channels), is given. A network without a
    classifier gives the embedding alone.
    Input and outputs are named as these values, in every format. Raises ``ValueError`` for any other value.
    """

    input: str = "pixels"
    output: str = "probabilities"
    embedding: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        choice("input", self.input, INPUTS)
        choice("output", self.output, OUTPUTS)
        if self.size is None:
            return
        if not isinstance(self.size, tuple) or len(self.size) != 2:
            raise ValueError(f"size must be (height, width), or None for any, got {self.size!r}")
        for side in self.size:
            whole("size", side, 1)
            if side > SIDE_MOST:
                raise ValueError(f"size must be at most {SIDE_MOST} pixels a side, got {side}")

    def suits(self, labels: Labels) -> None:
        """Raises ``ValueError`` where labels of that kind have no such output."""
        if self.output not in ("logits", ANSWERS[labels.kind]):
            raise ValueError(
                f"this network gives {ANSWERS[labels.kind]}, no {self.output}: ask for {ANSWERS[labels.kind]} or logits"
            )

    def tensor(self, channels: int = 3) -> tuple[str, tuple[int | str, ...]]:
        """Type and shape of the input; what is open has a name in place of a number."""
        height, width = self.size or ("height", "width")
        if self.input == "normalised":
            return "float32", ("pictures", channels, height, width)
        return "uint8" if self.input == "pixels" else "float32", ("pictures", height, width, channels)

    def in_words(self, channels: int = 3, classified: bool = True) -> str:
        """One line for a person: "uint8 pixels (pictures, 224, 224, 3) → probabilities"."""
        kind, shape = self.tensor(channels)
        outputs = [self.output] * classified + ["embedding"] * (self.embedding or not classified)
        return f"{kind} {self.input} ({', '.join(map(str, shape))}) → {' and '.join(outputs)}"

    def metadata(self, contract: Contract) -> dict[str, str]:
        """The texts that go into an exported file: ONNX's metadata, an IR's ``rt_info``, ``extra_files`` of a ``.pt2``.

        In a ``.tflite`` they are files in the archive behind the flatbuffer, and entries of its own metadata as well.
        """
        return {CONTRACT: contract.to_json(), INTERFACE: self.to_json()}


def said(metadata: Mapping[str, str], where: object) -> tuple[Contract, Interface]:
    """Contract and interface from a file's metadata. Raises ``ValueError`` where ``where`` is not a file of ours."""
    if CONTRACT not in metadata or INTERFACE not in metadata:
        raise ValueError(f"{where} does not say how it is to be used: only files that effnet exported can be run")
    try:
        return Contract.from_json(metadata[CONTRACT]), Interface.from_json(metadata[INTERFACE])
    except ValueError as error:
        raise ValueError(f"{where} was exported by another version of effnet: export it again ({error})") from None
