"""Networks in int8: calibrated on pictures, with the loss of every layer and a budget that keeps some in float."""

from effnet.exporting.quantise.run import Quantised, quantise, sensitivity
from effnet.exporting.quantise.sensitivity import Sensitivity, in_words

__all__ = ["Quantised", "Sensitivity", "in_words", "quantise", "sensitivity"]
