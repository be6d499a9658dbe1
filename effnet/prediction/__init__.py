"""Prediction: images to labels with probabilities, values, or embeddings. Importing it does not import torch."""

from effnet.prediction import predictor

Prediction = predictor.Prediction
Predictor = predictor.Predictor
