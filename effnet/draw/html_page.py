"""The frame of every HTML page that the program writes: one self-contained file, no scripts, no network."""

from base64 import b64encode
from io import BytesIO

from jinja2 import BaseLoader, ChoiceLoader, DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from effnet.draw.text import printable_page

# Screen, phone, dark mode and print. Text on --back, and --ink and --soft on --pale, have a contrast of at least 4.5.
# --soft: secondary text; --pale: a tile; --mark: a link. In a .bar, the <i> is the filled part.
PAGE_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title><style>
:root { --ink: #23272f; --soft: #5c6471; --line: #e3e5e9; --back: #fcfcfa; --pale: #f2f3f5; --mark: #2f6fc8 }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ec; --soft: #a3acba; --line: #2f353f; --back: #15181d; --pale: #1e2229; --mark: #6aa5f2 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  -webkit-text-size-adjust: 100%; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
main { margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
figure { margin: 0 } a { color: var(--mark) } :focus-visible { outline: 3px solid var(--mark); outline-offset: 2px }
.bar { background: var(--line); border-radius: 1rem; overflow: hidden } .bar i { display: block; height: 100% }
@media print { body { background: none } main { padding: 0 } .bar, .bar i { print-color-adjust: exact } }
{% block style %}{{ style }}{% endblock %}</style></head>
<body><main>
{% block body %}{{ body }}{% endblock +%}
</main></body></html>
"""


def make_environment(loader: BaseLoader | None = None) -> Environment:
    """Return a Jinja environment that escapes everything and knows ``page.html`` beside the templates of ``loader``.

    A template extends the frame and fills its blocks ``style`` and ``body``; it is rendered with a ``title``:

        environment = make_environment(DictLoader({"report.html": '{% extends "page.html" %}…'}))
        environment.get_template("report.html").render(title="Training report", …)
    """
    frame = DictLoader({"page.html": PAGE_TEMPLATE})
    return Environment(
        loader=ChoiceLoader([frame, loader] if loader else [frame]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(title: str, style: str, body: str) -> str:
    """Return ``body``, which is HTML already, as a whole page with ``style`` after the common style sheet."""
    page = make_environment().get_template("page.html")
    content = Markup(body)  # nosec B704  # HTML already
    rules = Markup(style)  # nosec B704  # our own
    return printable_page(page.render(title=title, style=rules.lstrip(), body=content))


def jpeg_data_url(image: Image.Image) -> str:
    """Return the image as a JPEG for the ``src`` of an ``<img>``: such a page is one file."""
    file = BytesIO()
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
