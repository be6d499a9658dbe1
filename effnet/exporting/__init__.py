"""Exporting networks to files for other runtimes, verified and optionally quantized."""
