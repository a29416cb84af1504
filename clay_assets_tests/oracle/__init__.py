"""The published stacchip library in an environment of its own, as an independent opinion on our chip index.

It is run, never imported: its pins conflict with ours. It was written by others and has the faults that our
documentation lists; tests compare only where both shall agree.
"""
