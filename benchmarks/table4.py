"""The paper's Table 4 on one core, as Markdown: `effnet reproduce table4` without a folder.

    python benchmarks/table4.py [--runs 20] [--core 0] [--all]

EfficientNet-B1 compared with ResNet-152, each on its best engine; with ``--all`` also B7 with GPipe's AmoebaNet-B,
which takes half an hour and about eleven gigabytes.
"""

from __future__ import annotations

import argparse

from effnet.lab.bench.paper_table4 import table4
from effnet.lab.compare.paper_figures import TABLE4
from effnet.lab.compare.table import to_markdown


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=20, help="rounds of three calls of each")
    options.add_argument("--core", type=int, help="the number of the core to stay on")
    options.add_argument("--all", action="store_true", help="both pairs")
    chosen = options.parse_args()
    print(to_markdown(table4(TABLE4 if chosen.all else TABLE4[:1], chosen.runs, chosen.core)), end="")


if __name__ == "__main__":
    main()
