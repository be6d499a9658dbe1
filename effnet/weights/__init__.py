"""Where numbers come from and go to."""

from effnet.weights.conversion import convert as convert
from effnet.weights.load import load as load
from effnet.weights.save import save as save
