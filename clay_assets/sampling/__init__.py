"""Stage 2: the places to sample."""
