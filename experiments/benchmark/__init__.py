"""How fast T and ∇T are, against every peer: ``python -m experiments.benchmark``."""
