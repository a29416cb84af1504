"""Version of what this stage writes. Raise it when the same inputs would give other values; a test says when."""

HEADERS_VERSION = "1"  # of the headers of a scene's files, and of the decision on its radiometry
