"""The manifest of the merged index: which parts it has, what each was made from, and which states it had before.

Reading it needs no raster.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

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
        row_groups: split → its chips in each row group of the file; empty where an older version merged.
    """

    platform: str
    year: int
    path: str
    rows: int
    scenes: int
    bytes: int
    inputs: str
    content: str
    row_groups: Mapping[str, Sequence[int]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class State:
    """A state that the merged index had after a merge.

    Attributes:
        hash: of it, see `state_hash`.
        rows: chips.
        changed: path → content of the parts that are not those of the state before; None: it is gone.
        recipe_hash: of the recipe that was merged with.
        software_version: that merged.
    """

    hash: str
    rows: int
    changed: Mapping[str, str | None]
    recipe_hash: str
    software_version: str


def state_hash(parts: Sequence[Part]) -> str:
    """Hash of the contents of parts and their places (BLAKE2b, 16 bytes): the same hash means the same rows."""
    told = "".join(f"{part.path} {part.content}\n" for part in sorted(parts, key=lambda part: part.path))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def read_manifest(store: Store) -> list[Part]:
    """The parts that the manifest lists; none if there is no merged index yet.

    Raises:
        InputError: the manifest cannot be understood.
    """
    document = read_document(store)
    return [] if document is None else parts_of(document, store)


def read_history(store: Store) -> list[State]:
    """The states that the merged index had, the newest last; none if there is no merged index yet.

    Raises:
        InputError: the manifest cannot be understood.
    """
    document = read_document(store)
    if document is None:
        return []
    try:
        history = [State(**entry) for entry in document.get("history", [])]
    except TypeError as error:
        raise not_understood(store, error) from error
    return history or [_next_state([], parts_of(document, store), document)]  # of a version that kept none


def read_document(store: Store) -> dict[str, Any] | None:
    """The whole manifest; None if there is no merged index yet.

    Raises:
        InputError: it cannot be understood.
    """
    try:
        document = json.loads(store.read(layout.MANIFEST))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise not_understood(store, error) from error
    if not isinstance(document, dict):
        raise not_understood(store, TypeError(f"a {type(document).__name__}, not an object"))
    return document


def parts_of(document: Mapping[str, Any], store: Store) -> list[Part]:
    """The parts of a manifest that was read from a store.

    Raises:
        InputError: it cannot be understood.
    """
    try:
        return [Part(**entry) for entry in document["partitions"]]
    except (KeyError, TypeError) as error:
        raise not_understood(store, error) from error


def not_understood(store: Store, error: Exception) -> InputError:
    """The error of a manifest that others have changed."""
    return InputError(
        f"{store.uri(layout.MANIFEST)}: cannot be understood ({error!r}). Delete it and materialise merged_index."
    )


def manifest_version(store: Store) -> int:
    """Version of the stored manifest; 0 where there is none."""
    try:
        return int(json.loads(store.read(layout.MANIFEST)).get("version", 0))
    except FileNotFoundError:
        return 0


def manifest_of(parts: Sequence[Part], recipe: Recipe, before: Sequence[State] = ()) -> bytes:
    """A manifest as it is stored.

    Args:
        parts: of the merged index.
        recipe: that was merged with.
        before: the states that it had; the present one is added, if it is another than the newest.
    """
    stamp, history = recipe.stamp(), list(before)
    if not history or history[-1].hash != state_hash(parts):
        history.append(_next_state(history, parts, stamp))
    document = {
        "version": MANIFEST_VERSION,
        "rows": sum(part.rows for part in parts),
        "partitions": [asdict(part) for part in parts],
        "history": [asdict(state) for state in history],
        **stamp,
    }
    return encoded(document)


def encoded(document: Mapping[str, Any]) -> bytes:
    """A document as JSON that people can read: lists of numbers take one line."""
    text = json.dumps(document, indent=2, sort_keys=True)
    return (re.sub(r"\[[\d\s,]+\]", lambda found: " ".join(found[0].split()), text) + "\n").encode()


def _next_state(history: Sequence[State], parts: Sequence[Part], stamp: Mapping[str, Any]) -> State:
    stood: dict[str, str | None] = {}
    for state in history:
        stood.update(state.changed)
    now: dict[str, str | None] = {part.path: part.content for part in parts}
    changed = {path: now.get(path) for path in sorted({*stood, *now}) if stood.get(path) != now.get(path)}
    rows, version = sum(part.rows for part in parts), str(stamp.get("software_version", ""))
    return State(state_hash(parts), rows, changed, str(stamp.get("recipe_hash", "")), version)
