"""Pictures into labels and probabilities, or into embeddings. Importing it imports no torch."""

from effnet.prediction.predictor import Prediction as Prediction
from effnet.prediction.predictor import Predictor as Predictor
