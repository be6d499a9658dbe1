"""Pictures in: where they come from, and how each becomes the network's input."""

from effnet.data.holdout import holdout as holdout
from effnet.data.pictures import Item as Item
from effnet.data.pictures import Pictures as Pictures
from effnet.data.pictures import Splits as Splits
from effnet.data.pictures import check as check
from effnet.data.pixels import PIXELS_MOST as PIXELS_MOST
from effnet.data.pixels import PictureError as PictureError
from effnet.data.pixels import fit as fit
from effnet.data.pixels import pixels as pixels
from effnet.data.pixels import read as read
from effnet.data.sources import open_data as open_data
