"""Pictures in the page: a small copy of each, and beside it where the network saw what it answered."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from effnet.data import PictureError, read
from effnet.data.pixels import Source, pixels
from effnet.explanation import activation, overlay
from effnet.net import EfficientNet

SIDE = 160  # pixels


class Gallery:
    """The pictures that were judged, by their names, and the network that judged them."""

    def __init__(self, model: EfficientNet, pictures: Mapping[str, Source]) -> None:
        self.model, self.pictures = model, pictures

    def card(self, picture: str, told: str, explained: str) -> str:
        """A picture, the class activation map of the class ``explained``, and what is ``told`` of it, as HTML.

        Without images where the picture is not at hand or cannot be read any more.
        """
        images = "".join(
            f'<img alt="{escape(words)}" src="data:image/jpeg;base64,{_jpeg(image)}">'
            for words, image in self._images(picture, explained)
        )
        seen = f'<div class="seen">{images}</div>' if images else ""
        return f"<li>{seen}{told}<br><small>{escape(picture)}</small></li>"

    def _images(self, picture: str, explained: str) -> list[tuple[str, Image.Image]]:
        if picture not in self.pictures:
            return []
        source = self.pictures[picture]
        try:
            whole = read(source, (SIDE // 2, SIDE // 2))
            seen = pixels(source, replace(self.model.preprocess, decode="exact"))
        except PictureError:
            return []
        found = [("", _fitted(whole))]
        if explained in self.model.labels.names:
            values = activation(self.model, seen, [self.model.labels.names.index(explained)])[0]
            below = _fitted(Image.fromarray(seen.clip(0, 255).astype(np.uint8)))
            found.append((f"what speaks for {explained}", overlay(np.asarray(below), values)))
        return found


def cards(shown: list[str]) -> str:
    """Cards beside each other."""
    return f'<ul class="cards">{"".join(shown)}</ul>'


def _fitted(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    if (times := SIDE // max(image.size)) > 1:  # of digits of 8 × 8 every pixel is to be seen
        image = image.resize((image.width * times, image.height * times), Resampling.NEAREST)
    return image


def _jpeg(image: Image.Image) -> str:
    out = BytesIO()
    image.save(out, "JPEG", quality=80)
    return b64encode(out.getvalue()).decode()
