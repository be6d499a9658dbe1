"""Google's own checkpoints, from which most other weights were ported.

Sources: tensorflow/tpu ``models/official/efficientnet/README.md`` (V1), ``lite/README.md``, ``edgetpu/README.md``;
google/automl ``efficientnetv2/README.md``, ``effnetv2_model.py`` (URLs), ``effnetv2_configs.py`` (sizes),
``datasets.py`` and ``preprocessing.py`` (how fine-tuned and 21k weights were evaluated). None of them states a hash.
Both repositories are under Apache-2.0.

Each archive holds one checkpoint; Lite's also hold two TFLite files, in float32 and int8. EdgeTPU's networks have a
class 0 for "background". The CondConv checkpoints have another architecture and are left out.
"""

from dataclasses import replace
from typing import Any

from effnet.arch import ARCHS
from effnet.metadata import Preprocess, default_crop_fraction
from effnet.weights import defaults
from effnet.weights.catalog.entry import HALF_MEAN_STD, CatalogEntry

_BASE_URL = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/"
_V1 = "tensorflow/tpu models/official/efficientnet/"
_V2 = "google/automl efficientnetv2/"

# V1: tag → (archive, how it was trained, arch → top-1)
_V1_FILES: dict[str, tuple[str, str, dict[str, float]]] = {
    "google": (
        "ckpts/efficientnet-{}.tar.gz",
        "ResNet's preprocessing",
        {"b0": 76.7, "b1": 78.7, "b2": 79.8, "b3": 81.1, "b4": 82.5, "b5": 83.1},
    ),
    "google_aa": (
        "ckptsaug/efficientnet-{}.tar.gz",
        "AutoAugment",
        {"b0": 77.1, "b1": 79.1, "b2": 80.1, "b3": 81.6, "b4": 82.9, "b5": 83.6, "b6": 84.0, "b7": 84.3},
    ),
    "google_ra": ("randaug/efficientnet-{}-randaug.tar.gz", "RandAugment", {"b5": 83.7, "b7": 84.7}),
    "google_ap": (
        "advprop/efficientnet-{}.tar.gz",
        "AdvProp and AutoAugment",
        {"b0": 77.6, "b1": 79.6, "b2": 80.5, "b3": 81.9, "b4": 83.3, "b5": 84.3, "b6": 84.8, "b7": 85.2, "b8": 85.5},
    ),
    "google_ns": (
        "noisystudent/noisy_student_efficientnet-{}.tar.gz",
        "Noisy Student and RandAugment; trained on JFT-300M too",
        {"b0": 78.8, "b1": 81.5, "b2": 82.4, "b3": 84.1, "b4": 85.3, "b5": 86.1, "b6": 86.4, "b7": 86.9, "l2": 88.4},
    ),
}
# Lite: arch → top-1 in float32 and in int8; EdgeTPU: arch → top-1 in float32
_LITE = {
    "lite0": (75.1, 74.4),
    "lite1": (76.7, 75.9),
    "lite2": (77.6, 77.0),
    "lite3": (79.8, 79.0),
    "lite4": (81.5, 80.2),
}
_TIMM_SIZES = {"lite3": 300, "lite4": 380}  # where the README states no size and timm's is not the builder's
_EDGE = {"edge_s": 77.23, "edge_m": 78.69, "edge_l": 80.62}
# V2: arch → top-1 of ImageNet-1k, and of ImageNet-21k fine-tuned on 1k; None: weights without a published accuracy
_V2_1K = {"v2_b0": 78.7, "v2_b1": 79.8, "v2_b2": 80.5, "v2_b3": 82.1, "v2_s": 83.9, "v2_m": 85.2, "v2_l": 85.7}
_V2_21K: dict[str, float | None] = dict.fromkeys(("v2_b0", "v2_b1", "v2_b2", "v2_b3"))
_V2_21K |= {"v2_s": 84.9, "v2_m": 86.2, "v2_l": 86.9, "v2_xl": 87.2}


def _entry(
    tag: str, arch: str, archive: str, cites: str, top1: float | None, preprocess: Preprocess | None = None, **rest: Any
) -> CatalogEntry:
    """Return an entry; by default evaluated with the arch's own preprocessing. ``rest``: its remaining fields."""
    preprocess = preprocess or defaults.tensorflow_preprocess(ARCHS[arch])
    return CatalogEntry(
        name=f"{arch}/{tag}",
        arch=arch,
        layout="tflite" if rest.get("file") else "tensorflow",
        publisher="google",
        numerics=defaults.tensorflow_numerics(ARCHS[arch]),
        preprocess=preprocess,
        citation=cites,
        top1=top1,
        license="apache-2.0",
        url=_BASE_URL + archive,
        **{"test_size": preprocess.size[0] if top1 else None, **rest},
    )


def _v1_entry(name: str, arch: str, size: int, archive: str, top1: float, note: str) -> CatalogEntry:
    """Return an entry of V1: preprocessing differs by size, and AdvProp normalizes differently."""
    preprocess = defaults.tensorflow_preprocess(ARCHS["b0"])
    preprocess = replace(preprocess, size=(size, size), crop_fraction=default_crop_fraction(size))
    if name == "google_ap":
        preprocess = replace(preprocess, mean=HALF_MEAN_STD[0], std=HALF_MEAN_STD[1])
    return _entry(name, arch, archive, _V1 + "README.md", top1, preprocess, note=note)


def _lite_entries(arch: str, float32: float, int8: float) -> tuple[CatalogEntry, ...]:
    """Return the checkpoint and both TFLite files of one archive. The test size of Lite3 and Lite4 is not published."""
    archive, folder = f"lite/efficientnet-{arch}.tar.gz", f"efficientnet-{arch}/efficientnet-{arch}"
    rest: dict[str, Any] = {}
    if arch in _TIMM_SIZES:
        builder, timm = ARCHS[arch].resolution, _TIMM_SIZES[arch]
        note = f"Google's builder says {builder} px, timm tests at {timm}; the README does not state it"
        rest = {"test_size": None, "note": note}
    return tuple(
        _entry(name, arch, archive, _V1 + "lite/README.md", top1, file=file, **rest)
        for name, top1, file in (
            ("google", float32, ""),
            ("google_float32", float32, f"{folder}-fp32.tflite"),
            ("google_int8", int8, f"{folder}-int8.tflite"),
        )
    )


def _edge_entry(arch: str, top1: float) -> CatalogEntry:
    archive, labels = f"efficientnet-edgetpu-{arch[-1].upper()}.tar.gz", "imagenet-1k+background"
    return _entry("google", arch, archive, _V1 + "edgetpu/README.md", top1, classes=1001, label_set=labels)


def _v2_archive(arch: str) -> str:
    return f"v2/efficientnet{arch.replace('_', '-')}"


def _v2_21k_entries(arch: str, top1: float | None) -> tuple[CatalogEntry, CatalogEntry]:
    """Return ImageNet-21k weights, trained and evaluated at 224 px, and those fine-tuned from them on ImageNet-1k."""
    archive, size = f"{_v2_archive(arch)}-21k", ARCHS[arch].resolution
    cites = _V2 + ("README.md, datasets.py" if top1 else "effnetv2_model.py, datasets.py")
    mean = (128 / 255,) * 3  # (x − 128) / 128
    large = Preprocess((224, 224), default_crop_fraction(224), "crop", "bilinear", mean, mean, resampling="tensorflow")
    tuned = Preprocess((size, size), 1.0, "squash", "bilinear", *HALF_MEAN_STD, resampling="tensorflow")
    return (
        _entry("google_in21k_ft", arch, f"{archive}-ft1k.tgz", cites, top1, tuned),
        _entry("google_in21k", arch, f"{archive}.tgz", cites, None, large, classes=21843, label_set="imagenet-21k"),
    )


ENTRIES = (
    *(
        _v1_entry(name, arch, ARCHS[arch].resolution, archive.format(arch), top1, note)
        for name, (archive, note, figures) in _V1_FILES.items()
        for arch, top1 in figures.items()
    ),
    _v1_entry("google_ns_475", "l2", 475, _V1_FILES["google_ns"][0].format("l2_475"), 88.2, _V1_FILES["google_ns"][1]),
    *(entry for arch, figures in _LITE.items() for entry in _lite_entries(arch, *figures)),
    *(_edge_entry(arch, top1) for arch, top1 in _EDGE.items()),
    *(_entry("google", arch, f"{_v2_archive(arch)}.tgz", _V2 + "README.md", top1) for arch, top1 in _V2_1K.items()),
    *(entry for arch, top1 in _V2_21K.items() for entry in _v2_21k_entries(arch, top1)),
)
