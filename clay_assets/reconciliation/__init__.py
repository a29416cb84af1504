"""Progress of a training set, and how it compares with the published one. No stage imports this package."""
