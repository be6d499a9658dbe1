"""The catalogue: every published file of weights, as data."""
