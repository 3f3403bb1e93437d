"""How results are drawn: one style for all figures, curves against the step size, and the figure of a comparison."""
