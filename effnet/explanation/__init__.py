"""Explanations of predictions: which parts of an image support a class."""

from effnet.explanation import attribution, explainer, heatmap

Explanation = explainer.Explanation
class_activation_maps = attribution.class_activation_maps
explain = explainer.explain
overlay = heatmap.overlay
