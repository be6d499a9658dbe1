"""The page frame: a whole document without scripts or network, in colors with enough contrast."""

from __future__ import annotations

import re

import pytest
from jinja2 import DictLoader

from effnet.draw.html_page import make_environment, render_page

PAGE = render_page("a <b> & c", "\nh1 { margin: 0 }\n", "<h1>x</h1>")


def test_the_frame() -> None:
    assert PAGE.startswith("<!DOCTYPE html>\n<html")
    assert "<title>a &lt;b&gt; &amp; c</title>" in PAGE
    assert "<body><main>\n<h1>x</h1>\n</main></body></html>" in PAGE
    assert "default-src 'none'" in PAGE
    assert PAGE.index(":root") < PAGE.index("h1 { margin: 0 }") < PAGE.index("</style>")


def test_a_template_fills_the_frame_and_escapes() -> None:
    template = (
        '{% extends "page.html" %}{% block style %}p { margin: 0 }{% endblock %}'
        "{% block body %}<p>{{ x }}</p>{% endblock %}"
    )
    page = make_environment(DictLoader({"own.html": template})).get_template("own.html").render(title="t", x="<i>")
    assert "<p>&lt;i&gt;</p>" in page
    assert page.index(":root") < page.index("p { margin: 0 }") < page.index("</style>")


@pytest.mark.parametrize("scheme", [0, 1])
def test_every_text_can_be_read(scheme: int) -> None:
    """The contrast of text and background is at least 4.5 (WCAG 2.2, 1.4.3)."""
    colors = dict(re.findall(r"--(\w+): #(\w{6})", re.findall(r":root \{(.*?)\}", PAGE)[scheme]))

    def light(name: str) -> float:
        parts = [int(colors[name][at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text, ground in [("ink", "back"), ("ink", "pale"), ("soft", "back"), ("soft", "pale"), ("mark", "back")]:
        low, high = sorted((light(text), light(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
