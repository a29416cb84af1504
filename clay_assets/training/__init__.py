"""What those who train import: chips of the merged index, without Dagster and without credentials of its own."""

from clay_assets.training.selection import Chips, open_chips

__all__ = ["Chips", "open_chips"]
