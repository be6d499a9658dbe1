"""Run a network on pictures."""
