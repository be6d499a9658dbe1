"""timm's weights: its own, and Google's ported ones (``tf_…``).

Sources: timm 1.0.31 ``models/efficientnet.py`` (tags, sizes, crop, mean and standard deviation; padding and ε are
arguments of its networks) and huggingface/pytorch-image-models ``results/results-imagenet.csv`` (accuracies), except
for the two ``ra4`` tags, whose accuracies are in the README of August 2024. Where timm has a test size besides the
training size, the entry has the test size, as the accuracies do.

Left out because no network here has their architecture: ``gc_efficientnetv2_rw_t``, ``efficientnet_x_*`` and
``efficientnet_h_*``, CondConv (``tf_efficientnet_cc_*``), MixNet, and those with group or layer norm or EvoNorm.
"""

from effnet.arch import canonical_name
from effnet.metadata import Preprocess
from effnet.weights.catalog.entry import HALF_MEAN_STD, IMAGENET_MEAN_STD, CatalogEntry, MeanStd
from effnet.weights.defaults import timm_model_numerics

# What the weights were trained on last, as the end of a tag says → the set of labels, its number of classes
_LABEL_SETS = {"in12k": ("imagenet-12k", 11821), "in21k": ("imagenet-21k", 21843)}
_SOURCE = "timm 1.0.31 models/efficientnet.py; pytorch-image-models "


def _entry(
    model: str,
    tag: str,
    size: int,
    crop: float,
    top1: float | None,
    mean_std: MeanStd = IMAGENET_MEAN_STD,
    *,
    train_size: int = 0,
    builder_size: int = 0,
    resize: str = "crop",
    interpolation: str = "bicubic",
) -> CatalogEntry:
    ported, arch = model.startswith("tf_"), canonical_name(model)
    pruned = model in ("efficientnet_es_pruned", "efficientnet_el_pruned")  # single weights are zero
    label_set, classes = _LABEL_SETS.get(tag.rpartition("_")[2], ("imagenet-1k", 1000))
    note = f"trained at {train_size} px" if train_size else ""
    if builder_size:
        note = f"timm tests at {size} px, Google's builder says {builder_size}"
    return CatalogEntry(
        name=f"{arch}/{'tf_' * ported}{'pruned_' * pruned}{tag}",
        arch=arch,
        layout="timm",
        publisher="timm",
        numerics=timm_model_numerics(model),
        preprocess=Preprocess((size, size), crop, resize, interpolation, *mean_std),
        citation=_SOURCE + ("README.md" if tag.startswith("ra4_") else "results/results-imagenet.csv"),
        classes=classes,
        label_set=label_set,
        top1=top1,
        test_size=None if top1 is None else size,
        license="apache-2.0",
        hub=f"timm/{model}.{tag}",
        file="model.safetensors",
        note=note,
    )


# For each network, the tag that is timm's default comes first.
ENTRIES = (
    #     timm's model        tag                  px   crop   top-1
    _entry("efficientnet_b0", "ra_in1k", 224, 0.875, 77.694),
    _entry("efficientnet_b0", "ra4_e3600_r224_in1k", 256, 1.0, 79.364, HALF_MEAN_STD, train_size=224),
    _entry("efficientnet_b1", "ra4_e3600_r240_in1k", 288, 1.0, 81.440, HALF_MEAN_STD, train_size=240),
    _entry("efficientnet_b1", "ft_in1k", 256, 1.0, 78.800, train_size=224),
    _entry("efficientnet_b2", "ra_in1k", 288, 1.0, 80.610, train_size=256),
    _entry("efficientnet_b3", "ra2_in1k", 320, 1.0, 82.242, train_size=288),
    _entry("efficientnet_b4", "ra2_in1k", 384, 1.0, 83.414, train_size=320),
    _entry("efficientnet_b5", "sw_in12k_ft_in1k", 448, 1.0, 85.892, resize="squash"),
    _entry("efficientnet_b5", "sw_in12k", 416, 0.95, None),
    _entry("efficientnet_lite0", "ra_in1k", 224, 0.875, 75.480),
    _entry("efficientnet_es", "ra_in1k", 224, 0.875, 78.054),
    _entry("efficientnet_em", "ra2_in1k", 240, 0.882, 79.240),
    _entry("efficientnet_el", "ra_in1k", 300, 0.904, 81.312),
    _entry("efficientnet_es_pruned", "in1k", 224, 0.875, 75.014),
    _entry("efficientnet_el_pruned", "in1k", 300, 0.904, 80.300),
    # Relatives
    _entry("efficientnetv2_rw_t", "ra2_in1k", 288, 1.0, 82.350, train_size=224),
    _entry("efficientnetv2_rw_s", "ra2_in1k", 384, 1.0, 83.808, train_size=288),
    _entry("efficientnetv2_rw_m", "agc_in1k", 416, 1.0, 84.812, train_size=320),
    _entry("tinynet_a", "in1k", 192, 0.875, 77.658),
    _entry("tinynet_b", "in1k", 188, 0.875, 74.978),
    _entry("tinynet_c", "in1k", 184, 0.875, 71.240),
    _entry("tinynet_d", "in1k", 152, 0.875, 66.974),
    _entry("tinynet_e", "in1k", 106, 0.875, 59.866),
    _entry("mobilenetv2_050", "lamb_in1k", 224, 0.875, 65.950),
    _entry("mobilenetv2_100", "ra_in1k", 224, 0.875, 72.976),
    _entry("mobilenetv2_110d", "ra_in1k", 224, 0.875, 75.056),
    _entry("mobilenetv2_120d", "ra_in1k", 224, 0.875, 77.302),
    _entry("mobilenetv2_140", "ra_in1k", 224, 0.875, 76.520),
    _entry("mnasnet_100", "rmsp_in1k", 224, 0.875, 74.650),
    _entry("mnasnet_small", "lamb_in1k", 224, 0.875, 66.196),
    _entry("semnasnet_075", "rmsp_in1k", 224, 0.875, 72.992),
    _entry("semnasnet_100", "rmsp_in1k", 224, 0.875, 75.450),
    _entry("efficientnet_b1_pruned", "in1k", 240, 0.882, 78.242, HALF_MEAN_STD),
    _entry("efficientnet_b2_pruned", "in1k", 260, 0.890, 79.920, HALF_MEAN_STD),
    _entry("efficientnet_b3_pruned", "in1k", 300, 0.904, 80.852, HALF_MEAN_STD),
    _entry("test_efficientnet", "r160_in1k", 160, 0.95, None),
    # Google's, ported: Noisy Student (trained on JFT-300M too), AdvProp, AutoAugment, RandAugment, or none of these
    _entry("tf_efficientnet_b0", "ns_jft_in1k", 224, 0.875, 78.670),
    _entry("tf_efficientnet_b0", "ap_in1k", 224, 0.875, 77.090, HALF_MEAN_STD),
    _entry("tf_efficientnet_b0", "aa_in1k", 224, 0.875, 76.834),
    _entry("tf_efficientnet_b0", "in1k", 224, 0.875, 76.532),
    _entry("tf_efficientnet_b1", "ns_jft_in1k", 240, 0.882, 81.394),
    _entry("tf_efficientnet_b1", "ap_in1k", 240, 0.882, 79.280, HALF_MEAN_STD),
    _entry("tf_efficientnet_b1", "aa_in1k", 240, 0.882, 78.830),
    _entry("tf_efficientnet_b1", "in1k", 240, 0.882, 78.560),
    _entry("tf_efficientnet_b2", "ns_jft_in1k", 260, 0.890, 82.378),
    _entry("tf_efficientnet_b2", "ap_in1k", 260, 0.890, 80.308, HALF_MEAN_STD),
    _entry("tf_efficientnet_b2", "aa_in1k", 260, 0.890, 80.084),
    _entry("tf_efficientnet_b2", "in1k", 260, 0.890, 79.604),
    _entry("tf_efficientnet_b3", "ns_jft_in1k", 300, 0.904, 84.056),
    _entry("tf_efficientnet_b3", "ap_in1k", 300, 0.904, 81.826, HALF_MEAN_STD),
    _entry("tf_efficientnet_b3", "aa_in1k", 300, 0.904, 81.644),
    _entry("tf_efficientnet_b3", "in1k", 300, 0.904, 80.878),
    _entry("tf_efficientnet_b4", "ns_jft_in1k", 380, 0.922, 85.162),
    _entry("tf_efficientnet_b4", "ap_in1k", 380, 0.922, 83.250, HALF_MEAN_STD),
    _entry("tf_efficientnet_b4", "aa_in1k", 380, 0.922, 83.018),
    _entry("tf_efficientnet_b4", "in1k", 380, 0.922, 82.608),
    _entry("tf_efficientnet_b5", "ns_jft_in1k", 456, 0.934, 86.088),
    _entry("tf_efficientnet_b5", "ap_in1k", 456, 0.934, 84.258, HALF_MEAN_STD),
    _entry("tf_efficientnet_b5", "ra_in1k", 456, 0.934, 83.810),
    _entry("tf_efficientnet_b5", "aa_in1k", 456, 0.934, 83.688),
    _entry("tf_efficientnet_b5", "in1k", 456, 0.934, 83.176),
    _entry("tf_efficientnet_b6", "ns_jft_in1k", 528, 0.942, 86.456),
    _entry("tf_efficientnet_b6", "ap_in1k", 528, 0.942, 84.786, HALF_MEAN_STD),
    _entry("tf_efficientnet_b6", "aa_in1k", 528, 0.942, 84.116),
    _entry("tf_efficientnet_b7", "ns_jft_in1k", 600, 0.949, 86.840),
    _entry("tf_efficientnet_b7", "ap_in1k", 600, 0.949, 85.122, HALF_MEAN_STD),
    _entry("tf_efficientnet_b7", "ra_in1k", 600, 0.949, 84.932),
    _entry("tf_efficientnet_b7", "aa_in1k", 600, 0.949, 84.414),
    _entry("tf_efficientnet_b8", "ap_in1k", 672, 0.954, 85.364, HALF_MEAN_STD),
    _entry("tf_efficientnet_b8", "ra_in1k", 672, 0.954, 85.368),
    _entry("tf_efficientnet_l2", "ns_jft_in1k_475", 475, 0.936, 88.234),
    _entry("tf_efficientnet_l2", "ns_jft_in1k", 800, 0.960, 88.352),
    _entry("tf_efficientnet_lite0", "in1k", 224, 0.875, 74.830, HALF_MEAN_STD),
    _entry("tf_efficientnet_lite1", "in1k", 240, 0.882, 76.644, HALF_MEAN_STD),
    _entry("tf_efficientnet_lite2", "in1k", 260, 0.890, 77.464, HALF_MEAN_STD),
    _entry(
        "tf_efficientnet_lite3", "in1k", 300, 0.904, 79.808, HALF_MEAN_STD, interpolation="bilinear", builder_size=280
    ),
    _entry(
        "tf_efficientnet_lite4", "in1k", 380, 0.920, 81.532, HALF_MEAN_STD, interpolation="bilinear", builder_size=300
    ),
    _entry("tf_efficientnet_es", "in1k", 224, 0.875, 76.600, HALF_MEAN_STD),
    _entry("tf_efficientnet_em", "in1k", 240, 0.882, 78.122, HALF_MEAN_STD),
    _entry("tf_efficientnet_el", "in1k", 300, 0.904, 80.252, HALF_MEAN_STD),
    _entry("tf_efficientnetv2_b0", "in1k", 224, 0.875, 78.358, train_size=192),
    _entry("tf_efficientnetv2_b1", "in1k", 240, 0.882, 79.462, train_size=192),
    _entry("tf_efficientnetv2_b2", "in1k", 260, 0.890, 80.194, train_size=208),
    _entry("tf_efficientnetv2_b3", "in21k_ft_in1k", 300, 0.900, 82.670, HALF_MEAN_STD, resize="squash", train_size=240),
    _entry("tf_efficientnetv2_b3", "in1k", 300, 0.904, 81.970, train_size=240),
    _entry("tf_efficientnetv2_b3", "in21k", 300, 0.904, None, HALF_MEAN_STD, train_size=240),
    _entry("tf_efficientnetv2_s", "in21k_ft_in1k", 384, 1.0, 84.288, HALF_MEAN_STD, train_size=300),
    _entry("tf_efficientnetv2_s", "in1k", 384, 1.0, 83.900, HALF_MEAN_STD, train_size=300),
    _entry("tf_efficientnetv2_s", "in21k", 384, 1.0, None, HALF_MEAN_STD, train_size=300),
    _entry("tf_efficientnetv2_m", "in21k_ft_in1k", 480, 1.0, 86.000, HALF_MEAN_STD, resize="squash", train_size=384),
    _entry("tf_efficientnetv2_m", "in1k", 480, 1.0, 85.204, HALF_MEAN_STD, resize="squash", train_size=384),
    _entry("tf_efficientnetv2_m", "in21k", 480, 1.0, None, HALF_MEAN_STD, resize="squash", train_size=384),
    _entry("tf_efficientnetv2_l", "in21k_ft_in1k", 480, 1.0, 86.802, HALF_MEAN_STD, resize="squash", train_size=384),
    _entry("tf_efficientnetv2_l", "in1k", 480, 1.0, 85.664, HALF_MEAN_STD, resize="squash", train_size=384),
    _entry("tf_efficientnetv2_l", "in21k", 480, 1.0, None, HALF_MEAN_STD, resize="squash", train_size=384),
    _entry("tf_efficientnetv2_xl", "in21k_ft_in1k", 512, 1.0, 86.748, HALF_MEAN_STD, resize="squash", train_size=384),
    _entry("tf_efficientnetv2_xl", "in21k", 512, 1.0, None, HALF_MEAN_STD, resize="squash", train_size=384),
)
