"""Report words of docs/words.txt in the package, its page and the documents, each with what is written instead."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = ROOT / "docs" / "words.txt"
SOURCES = ("effnet/**/*.py", "effnet/**/*.js", "effnet/**/*.html", "docs/*.md", "docs/*.py", "*.md", "benchmarks/*.py")
ALLOW = "words: allow"


def read_words(text: str) -> list[tuple[re.Pattern[str], str]]:
    """Pairs of (pattern, replacement) from the lines of docs/words.txt; lines that begin with # are comments."""
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return [(re.compile(pattern, re.IGNORECASE), replacement) for pattern, replacement in rows]


def find_words(text: str, words: list[tuple[re.Pattern[str], str]]) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, word found, replacement)."""
    for number, line in enumerate(text.splitlines(), start=1):
        if ALLOW not in line:
            for pattern, replacement in words:
                yield from ((number, match[0], replacement) for match in pattern.finditer(line))


def main() -> int:
    """Exit status: 0 when nothing was found, 1 otherwise."""
    words = read_words(WORDS.read_text(encoding="utf-8"))
    found = 0
    for path in sorted({path for source in SOURCES for path in ROOT.glob(source)}):
        for number, word, replacement in find_words(path.read_text(encoding="utf-8"), words):
            print(f"{path.relative_to(ROOT)}:{number}: {word!r}: write {replacement}")
            found += 1
    if found:
        print(f"{found} words that docs/words.txt replaces", file=sys.stderr)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
