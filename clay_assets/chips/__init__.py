"""Stage 4: the chips of each scene, and the index of all chips."""
