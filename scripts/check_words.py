"""Find words that docs/words.txt replaces in the package, the documents and the benchmarks."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = ROOT / "docs" / "words.txt"
SOURCES = (
    "effnet/**/*.py",
    "effnet/**/*.js",
    "effnet/**/*.html",
    "docs/**/*.md",
    "docs/*.py",
    "*.md",
    "benchmarks/*.py",
)
ALLOW = "words: allow"


def read_words(text: str) -> list[tuple[re.Pattern[str], str]]:
    """Return (pattern, replacement) for each line of docs/words.txt that is not a comment."""
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return [(re.compile(pattern, re.IGNORECASE), replacement) for pattern, replacement in rows]


def find_words(text: str, words: list[tuple[re.Pattern[str], str]]) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, word found, replacement)."""
    for number, line in enumerate(text.splitlines(), start=1):
        if ALLOW not in line:
            for pattern, replacement in words:
                yield from ((number, match[0], replacement) for match in pattern.finditer(line))


def main() -> int:
    """Print all findings. Returns 1 if there are any, else 0."""
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
