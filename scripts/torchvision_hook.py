"""Make ``import torchvision`` work in this environment, where its compiled operators do not fit torch.

The package index has torchvision for CUDA only. Beside a CPU build of torch, ``import torchvision`` and ``import timm``
fail in everyone's scripts: ``operator torchvision::nms does not exist``. This package declares the operators first
(`effnet.data.torchvision_compat`); the hook, which ``make setup`` installs by this script, does so for every script. It
is not installed where torchvision's own library loads.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

NAME = "effnet_torchvision_hook"
HOOK = '''"""Declares torchvision's operators before it is imported. Written by effnet's scripts/torchvision_hook.py."""

import sys


class TorchvisionFinder:
    """Finds nothing: it is asked first, when torchvision is about to be imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(cls)
            try:
                from effnet.data.torchvision_compat import declare_operators
            except ImportError:  # effnet has been removed
                return None
            declare_operators()
        return None


sys.meta_path.insert(0, TorchvisionFinder)
'''


def write_hook(folder: Path) -> None:
    """Write the hook, and the file by which Python imports it at its start, to a folder of packages."""
    (folder / f"{NAME}.py").write_text(HOOK, encoding="utf-8")
    (folder / f"{NAME}.pth").write_text(f"import {NAME}\n", encoding="utf-8")


def main() -> None:
    """Install the hook if torchvision is installed and cannot be imported without it."""
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if done.returncode and "operator torchvision::" in done.stderr:
        write_hook(Path(sysconfig.get_paths()["purelib"]))


if __name__ == "__main__":
    main()
