"""Searches by training many small networks: architectures, scaling coefficients, a study of compound scaling."""
