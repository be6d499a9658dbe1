"""Networks that are near the family but outside it, recognized by their names or by their tensors.

They are timm's: rows of the family with another norm, another convolution or another pooling. Where their tensors are
also those of a network of the family (blur pooling has no weights), only a name can tell.
"""

import re
from collections.abc import Mapping
from math import prod

Shapes = Mapping[str, tuple[int, ...]]

# timm's names → what is unlike the family
_BY_NAME = {
    r"(?:test_)?efficientnet_(?:b\d_)?(?:g\d+_)?gn": "group norm is",
    r"test_efficientnet_ln": "layer norm is",
    r"(?:test_)?efficientnet_(?:b\d_)?(?:g\d+_)?evos": "grouped convolution with EvoNorm is",
    r"(?:tf_)?efficientnet_cc_b\d_\d+e": "CondConv, whose kernels depend on the image, is",
    r"(?:tf_)?mixnet_(?:s|m|l|xxl|xl)": "a depthwise convolution of mixed kernels is",
    r"efficientnet_[xh]_b\d": "space-to-depth is",
    r"efficientnet_blur_b\d": "blur pooling is",
    r"gc_efficientnetv2_rw_t": "global context attention is",
    r"fbnetc_100|spnasnet_100|mobilenet_edgetpu(?:_v2)?_\w+": "a stage of unlike blocks is",
    r"mobilenetv1_\d+h?": "an activation after the projection is",
    r"(?:tf_)?mobilenetv3_\w+|mobilenetv4_\w+": "hard-swish or another block than MBConv is",
}


def explain_outside(name: str = "", tensors: Shapes | None = None) -> str | None:
    """Say that a network is outside the family, and why: by what it is called, or else by its tensors.

    Args:
        name: Its name as stated, in a file's name or otherwise; "" if none is.
        tensors: timm's names of its tensors → their shapes.

    Returns:
        One sentence, or None if nothing tells that it is outside.

    Example:
        >>> explain_outside("runs/efficientnet_blur_b0.pth")
        'this is efficientnet_blur_b0: blur pooling is outside the family'
    """
    text = re.sub(r"[^a-z0-9]+", "_", name.lower())
    for pattern, unlike in _BY_NAME.items():
        if found := re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", text):
            return f"this is {found[0]}: {unlike} outside the family"
    return _explain_tensors(tensors) if tensors else None


# Values in the backbone without the stem's kernels, batch norm's statistics included → timm's names
_BY_BACKBONE = {
    5_280_796: ("efficientnet_b0_g8_gn",),
    6_868_740: ("efficientnet_b0_g16_evos",),
    4_006_684: ("efficientnet_b0_gn",),
    12_713_136: ("efficientnet_b3_g8_gn",),
    10_195_488: ("efficientnet_b3_gn",),
    12_074_268: ("efficientnet_cc_b0_4e",),
    22_773_436: ("efficientnet_cc_b0_8e",),
    38_496_152: ("efficientnet_cc_b1_8e",),
    43_619_140: ("efficientnet_h_b5",),
    11_847_268: ("efficientnet_x_b3",),
    31_557_686: ("efficientnet_x_b5",),
    12_771_089: ("gc_efficientnetv2_rw_t",),
    5_845_660: ("mixnet_l",),
    3_518_446: ("mixnet_m",),
    2_629_366: ("mixnet_s",),
    10_439_504: ("mixnet_xl",),
    22_544_248: ("mixnet_xxl",),
    99_644: ("test_efficientnet_evos",),
    98_548: ("test_efficientnet_gn", "test_efficientnet_ln"),
}
# How such tensors are named → what is unlike the family
_BY_TENSOR = {
    r"\.routing_fn\.": "CondConv, whose kernels depend on the image, is",
    r"\.conv_(?:dw|pw|pwl)\.\d+\.weight$": "a depthwise convolution of mixed kernels is",
    r"\.conv_s2d\.": "space-to-depth is",
    r"\.se\.(?:conv_attn|mlp_)": "global context attention is",
    r"\.bn1\.v$": "EvoNorm is",
}


def _explain_tensors(tensors: Shapes) -> str | None:
    if "conv_stem.weight" not in tensors or "bn1.weight" not in tensors:
        return None
    unlike = next((words for pattern, words in _BY_TENSOR.items() if any(re.search(pattern, t) for t in tensors)), "")
    if not unlike and "bn1.running_mean" not in tensors:
        unlike = "group or layer norm is"
    if not unlike and any(name.endswith(".conv_dw.weight") and shape[1] > 1 for name, shape in tensors.items()):
        unlike = "a grouped convolution is"
    if not unlike:
        return None
    others = ("conv_stem.", "classifier.")
    backbone = [shape for name, shape in tensors.items() if not name.startswith(others) and "num_batches" not in name]
    names = _BY_BACKBONE.get(sum(map(prod, backbone)), ())
    if len(names) == 1:
        return explain_outside(names[0])
    return f"this is {' or '.join(names) or 'an unknown network'}: {unlike} outside the family"
