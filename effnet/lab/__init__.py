"""Research: the paper's tables and baselines, benchmarks, and searches for networks and scaling coefficients."""
