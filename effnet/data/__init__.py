"""Labeled images: where they come from, and how each becomes the network's input."""

from effnet.data.dataset import ImageDataset as ImageDataset
from effnet.data.dataset import Item as Item
from effnet.data.dataset import Splits as Splits
from effnet.data.dataset import check_images as check_images
from effnet.data.dataset_sources import open_data as open_data
from effnet.data.image_io import MAX_IMAGE_PIXELS as MAX_IMAGE_PIXELS
from effnet.data.image_io import ImageError as ImageError
from effnet.data.image_io import load_input as load_input
from effnet.data.image_io import read_image as read_image
from effnet.data.image_io import resize_and_crop as resize_and_crop
from effnet.data.splits import holdout as holdout
