"""The manifest of the merged index: which parts it has, and what each was made from. Reading it needs no raster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from clay_assets.errors import InputError
from clay_assets.recipes import Recipe
from clay_assets.storage import layout
from clay_assets.storage.stores import Store

MANIFEST_VERSION = 3  # since 3, every part has land cover and splits


@dataclass(frozen=True)
class Part:
    """One partition of the merged index, as the manifest tells it.

    Attributes:
        platform: platform key.
        year: partition.
        path: below the folder of the merged index.
        rows: chips.
        scenes: scenes that they come from.
        bytes: size of the file.
        inputs: hash of what it was made from.
        content: hash of the file (BLAKE2b, 16 bytes).
    """

    platform: str
    year: int
    path: str
    rows: int
    scenes: int
    bytes: int
    inputs: str
    content: str


def read_manifest(store: Store) -> list[Part]:
    """The parts that the manifest lists; none if there is no merged index yet.

    Raises:
        InputError: the manifest cannot be understood.
    """
    try:
        document = json.loads(store.read(layout.MANIFEST))
        return [Part(**entry) for entry in document["partitions"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{store.uri(layout.MANIFEST)}: cannot be understood ({error!r}). Delete it and materialise merged_index."
        ) from error


def manifest_version(store: Store) -> int:
    """Version of the stored manifest; 0 where there is none."""
    try:
        return int(json.loads(store.read(layout.MANIFEST)).get("version", 0))
    except FileNotFoundError:
        return 0


def manifest_of(parts: Sequence[Part], recipe: Recipe) -> bytes:
    """A manifest as it is stored."""
    document = {
        "version": MANIFEST_VERSION,
        "rows": sum(part.rows for part in parts),
        "partitions": [asdict(part) for part in parts],
        **recipe.stamp(),
    }
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
