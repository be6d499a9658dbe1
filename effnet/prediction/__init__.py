"""Prediction: images to labels with probabilities, values, or embeddings. Importing it does not import torch."""

from effnet.prediction.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
