"""Stage 1: the tiling grid, and the land cover of each tile."""
