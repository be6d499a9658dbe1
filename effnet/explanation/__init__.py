"""Why a network answers as it does: which parts of a picture spoke for a class."""

from effnet.explanation.attribution import class_activation_maps as class_activation_maps
from effnet.explanation.explainer import Explanation as Explanation
from effnet.explanation.explainer import explain as explain
from effnet.explanation.heatmap import overlay as overlay
