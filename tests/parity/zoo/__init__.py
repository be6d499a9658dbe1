"""Checkpoints as people have them: written as by each library's users, opened, and compared with its own answer."""
