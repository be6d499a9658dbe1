"""Searches that train or measure many networks: coefficients, blocks, the claim of compound scaling."""
