"""Keras' files: ``.h5`` of Keras 2 and 3, ``.weights.h5`` and ``.keras``, read and written without Keras."""

from __future__ import annotations

from effnet.weights.formats.keras.reading import read
from effnet.weights.formats.keras.writing import write

__all__ = ["read", "write"]
