"""Tests of clay_assets, in the same folders as the package, and the real servers that they talk to."""
