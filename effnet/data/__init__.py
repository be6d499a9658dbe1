"""Labeled images: where they come from, and how each becomes the network's input."""

from effnet.data.dataset import ImageDataset, Item, Splits, check_images
from effnet.data.dataset_sources import open_data
from effnet.data.image_io import MAX_IMAGE_PIXELS, ImageError, load_input, read_image, resize_and_crop
from effnet.data.splits import holdout

__all__ = [
    "MAX_IMAGE_PIXELS", "ImageDataset", "ImageError", "Item", "Splits", "check_images", "holdout", "load_input",
    "open_data", "read_image", "resize_and_crop",
]  # fmt: skip
