"""Stage 2: which places are sampled."""
