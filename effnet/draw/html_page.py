"""A page of one file: what every page we write has in common, its head, its colours by day and by night, its frame."""

from __future__ import annotations

from html import escape


def render_page(title: str, style: str, body: str) -> str:
    """``body``, which is HTML already, as a whole page that forbids itself scripts and the network.

    ``style`` comes after what all pages share; colours are the variables ``--ink``, ``--soft`` (words of less weight),
    ``--line``, ``--back``, ``--pale`` (a tile) and ``--mark`` (a link). Every text on ``--back``, and ink and soft on
    ``--pale``, has a contrast of at least 4.5.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}{style.lstrip()}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


# The bar is the groove, the i in it what is filled
_STYLE = """
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
"""
