"""Weights of ``keras.applications``: Google's AutoAugment checkpoints of V1, and those of V2, ported.

Sources: keras 3.15 ``applications/efficientnet.py`` and ``efficientnet_v2.py`` (URLs, md5 with and without the
classifier, preprocessing inside the network), and the table at keras.io/api/applications (accuracies: V1's are
Google's). Keras does not say how to resize: the entries have what Google evaluates these weights with.
"""

from effnet.arch import ARCHS
from effnet.metadata import Numerics
from effnet.weights import defaults
from effnet.weights.catalog.entry import CatalogEntry

_V1 = "https://storage.googleapis.com/keras-applications/efficientnet"
_V2 = "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/efficientnetv2-"

# arch → (URL without its ending, md5 with classifier, md5 without, top-1)
_FILES = {
    "b0": (f"{_V1}b0", "902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d", 77.1),
    "b1": (f"{_V1}b1", "1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432", 79.1),
    "b2": (f"{_V1}b2", "b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39", 80.1),
    "b3": (f"{_V1}b3", "ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226", 81.6),
    "b4": (f"{_V1}b4", "18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba", 82.9),
    "b5": (f"{_V1}b5", "ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f", 83.6),
    "b6": (f"{_V1}b6", "165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743", 84.0),
    "b7": (f"{_V1}b7", "8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a", 84.3),
    "v2_b0": (f"{_V2}b0", "21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff", 78.7),
    "v2_b1": (f"{_V2}b1", "069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37", 79.8),
    "v2_b2": (f"{_V2}b2", "424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb", 80.5),
    "v2_b3": (f"{_V2}b3", "1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856", 82.0),
    "v2_s": (f"{_V2}s", "e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070", 83.9),
    "v2_m": (f"{_V2}m", "a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342", 85.3),
    "v2_l": (f"{_V2}l", "27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615", 85.7),
}


def _entry(arch: str, url: str, md5: str, top1: float | None) -> CatalogEntry:
    top = top1 is not None
    module = "efficientnet_v2.py" if arch.startswith("v2") else "efficientnet.py"
    return CatalogEntry(
        name=f"{arch}/keras{'' if top else '_notop'}",
        arch=arch,
        layout="keras",
        publisher="keras",
        numerics=Numerics(),
        preprocess=defaults.tensorflow_preprocess(ARCHS[arch]),
        citation=f"keras 3.15 applications/{module}; keras.io/api/applications",
        classes=1000 if top else 0,
        label_set="imagenet-1k" if top else "",
        top1=top1,
        test_size=ARCHS[arch].resolution if top else None,
        license="apache-2.0",
        url=f"{url}{'' if top else '_notop'}.h5",
        hash=f"md5:{md5}",
    )


ENTRIES = tuple(
    entry
    for arch, (url, top, notop, top1) in _FILES.items()
    for entry in (_entry(arch, url, top, top1), _entry(arch, url, notop, None))
)
