"""The training API: chips of the merged index and their pixels, without Dagster.

Names are imported on first use, so `import clay_assets.training` is quick. `ChipDataset`, `ChipStream`, `ChipSampler`,
`ChipLoader` and `Tensors` need PyTorch (`pip install 'clay_assets[torch]'`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clay_assets.training.balance import Balanced, balanced
    from clay_assets.training.chip import Chip, ChipBatch
    from clay_assets.training.chipper import Chipper
    from clay_assets.training.dataset import ChipDataset, ChipSampler, ChipStream
    from clay_assets.training.export import export_chips
    from clay_assets.training.labelled import ChipsAt
    from clay_assets.training.loader import ChipLoader
    from clay_assets.training.selection import Chips, open_chips
    from clay_assets.training.tensors import Tensors

# Public name → module that defines it.
_NAMES = {
    "Balanced": "balance",
    "Chip": "chip",
    "ChipBatch": "chip",
    "ChipDataset": "dataset",
    "ChipLoader": "loader",
    "ChipSampler": "dataset",
    "ChipStream": "dataset",
    "Chipper": "chipper",
    "Chips": "selection",
    "ChipsAt": "labelled",
    "Tensors": "tensors",
    "balanced": "balance",
    "export_chips": "export",
    "open_chips": "selection",
}

__all__ = [
    "Balanced",
    "Chip",
    "ChipBatch",
    "ChipDataset",
    "ChipLoader",
    "ChipSampler",
    "ChipStream",
    "Chipper",
    "Chips",
    "ChipsAt",
    "Tensors",
    "balanced",
    "export_chips",
    "open_chips",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
