"""Stage 3: search for scenes, pick them, and settle which of their files are read."""
