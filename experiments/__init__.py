"""What the paper's experiments run: grids of cells, a pure function per cell, tidy tables. Nothing here draws."""
