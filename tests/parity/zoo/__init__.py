"""Checkpoints as people have them: written by each library as its users do, opened, and compared with its own answer."""
