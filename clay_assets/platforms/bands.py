"""Reads the band list of an item's asset: STAC 1.1 `bands`, or `eo:bands` of earlier versions.

https://github.com/radiantearth/stac-spec/blob/v1.1.0/commons/common-metadata.md#bands
https://github.com/stac-extensions/eo/blob/v1.1.0/README.md#band-object
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LISTS = ("bands", "eo:bands")
NAMES = ("eo:common_name", "common_name", "name")
_ALPHA = re.compile(r"alpha|mask|opacity|transparency", re.IGNORECASE)


def measured_bands(item: Mapping[str, Any], asset: str, known: int = 0) -> tuple[int, ...]:
    """Numbers, from 1, of the bands of a file that are measurements, not alpha.

    Args:
        item: the item; the band list is taken from the asset, or else from the item.
        asset: name of the asset.
        known: number of measurement bands if the item does not name them; 0 if only the file can tell.
    """
    names = _listed(item, asset)
    if not any(names):
        return tuple(range(1, known + 1))
    told = ((band, band <= known if name is None else not _ALPHA.search(name)) for band, name in enumerate(names, 1))
    return tuple(band for band, measured in told if measured)


def _listed(item: Mapping[str, Any], asset: str) -> list[str | None]:
    """Band names from the first list that has any; lists of numbers are indexes of the item's list."""
    properties = item.get("properties") or {}
    for holder in (item["assets"].get(asset) or {}, properties):
        for field in LISTS:
            entries = holder.get(field)
            if isinstance(entries, list | tuple):
                names = [_name(entry, properties.get("eo:bands")) for entry in entries]
                if any(names):
                    return names
    return []


def _name(entry: Any, numbered: Any) -> str | None:
    if isinstance(entry, int) and isinstance(numbered, list) and 0 <= entry < len(numbered):
        entry = numbered[entry]  # before STAC 1.0
    if isinstance(entry, Mapping):
        entry = next((entry[name] for name in NAMES if isinstance(entry.get(name), str)), None)
    return entry if isinstance(entry, str) and entry.strip() else None
