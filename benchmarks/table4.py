"""Table 4 of the paper on one core, as Markdown: ``effnet reproduce table4`` with fewer options.

    python benchmarks/table4.py [--runs 20] [--core 0] [--all]

EfficientNet-B1 compared with ResNet-152, each on its fastest engine; with ``--all`` also B7 compared with GPipe's
AmoebaNet-B, which takes half an hour and about 11 GB.
"""

from __future__ import annotations

import argparse

from effnet.lab.bench.paper_table4 import table4
from effnet.lab.compare.comparison_table import to_markdown
from effnet.lab.compare.published_numbers import TABLE4


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="rounds of three calls per network")
    parser.add_argument("--core", type=int, help="index of the core to run on")
    parser.add_argument("--all", action="store_true", help="both pairs")
    options = parser.parse_args()
    print(to_markdown(table4(TABLE4 if options.all else TABLE4[:1], options.runs, options.core)), end="")


if __name__ == "__main__":
    main()
