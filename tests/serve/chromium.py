"""A Chromium for the tests of the page: where there is one, and getting one where that is allowed.

``python -m tests.serve.chromium`` looks for one, and otherwise installs Debian's package, as root, or Playwright's own.
Where neither can be had it says so and ends well: the tests of the page are then skipped by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import Playwright, sync_playwright

PATIENCE = 300  # seconds for one command


def chromium(playwright: Playwright) -> str | None:
    """Where a Chromium is, None if there is none."""
    own = playwright.chromium.executable_path
    found = [own, *filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))]
    return next((path for path in found if os.path.exists(path)), None)


def ways() -> Iterator[tuple[list[str], ...]]:
    """The commands of each way of getting one, the likeliest first."""
    if shutil.which("apt-get") and os.path.exists("/etc/debian_version") and os.geteuid() == 0:
        yield (
            ["apt-get", "-qq", "update"],
            ["apt-get", "-qq", "--yes", "install", "--no-install-recommends", "chromium"],
        )
    yield ([sys.executable, "-m", "playwright", "install", "chromium"],)


def done(command: list[str]) -> bool:
    """Whether ``command`` succeeds, without a word, in the time it has."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        finished = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return finished.returncode == 0


def main() -> None:
    """Looks for one, installs one, or says that there is none."""
    with sync_playwright() as playwright:
        for way in ways():
            if chromium(playwright):
                return
            all(map(done, way))
        if not chromium(playwright):
            print("no Chromium is found or can be installed: the tests of the served page will be skipped")


if __name__ == "__main__":
    main()
