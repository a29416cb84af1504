"""Versions of what this stage writes. Increase one when the same inputs would give other values; a test tells which."""

INDEX_VERSION = "3"  # of a scene's chip index; `Platform.version` is the version of one platform's rules
LANDCOVER_VERSION = "1"  # of the land cover of a scene's chips
MERGE_VERSION = "4"  # of a part of the merged index
# INDEX_VERSION and Platform.version of chip indexes with the same values as in version 0.1 of the package.
LIKE_FORMER = ("3", "1")
