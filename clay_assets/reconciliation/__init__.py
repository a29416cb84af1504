"""How far a training set is, and how it compares with the published one. Stands above the stages that it compares."""
