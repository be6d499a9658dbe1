"""Running networks: engines, the choice of the fastest one, and its cache."""
