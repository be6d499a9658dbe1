"""A caption below a picture."""

from __future__ import annotations

from PIL import Image, ImageDraw

from effnet.draw.diagram.font import font_of, readable, shortened

GROUND, INK, SOFT = "#15181d", "#f2f3f5", "#9aa3b2"  # it goes with light pages and dark ones


def captioned(picture: Image.Image, left: str, right: str = "") -> Image.Image:
    """``picture`` with a line below it: ``left`` is shortened where there is no room for both."""
    size = max(11, min(22, picture.width // 26))
    face, edge = font_of(size, left, right), size // 2
    high = round(size * 2)
    made = Image.new("RGB", (picture.width, picture.height + high), GROUND)
    made.paste(picture, (0, 0))
    draw, middle = ImageDraw.Draw(made), picture.height + high / 2
    room = picture.width - 2 * edge - (face.getlength(right) + size if right else 0)
    draw.text((edge, middle), shortened(readable(left), room, face.getlength), INK, face, anchor="lm")
    draw.text((picture.width - edge, middle), right, SOFT, face, anchor="rm")
    return made
