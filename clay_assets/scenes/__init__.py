"""Stage 3: which scenes are searched for, which are picked, and which of their files are read."""
