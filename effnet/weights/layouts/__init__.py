"""One file an ecosystem: how its tensors are called."""
