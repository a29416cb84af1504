"""The manifest of the merged index: its parts, what each was made from, and the index's earlier states.

Importable without raster libraries.
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
    """One partition of the merged index, as listed in the manifest.

    Attributes:
        platform: platform key.
        year: partition.
        path: path below the folder of the merged index.
        rows: number of chips.
        scenes: number of their scenes.
        bytes: size of the file.
        inputs: hash of its inputs.
        content: hash of the file's bytes (BLAKE2b, 16 bytes).
        row_groups: split → number of its chips in each row group of the file; empty if merged by an older version.
        bbox: west, south, east and north of its chips, degrees; empty if merged by an older version.
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
    bbox: Sequence[float] = field(default=(), hash=False)


@dataclass(frozen=True)
class State:
    """A state of the merged index after a merge.

    Attributes:
        hash: the state's hash, see `state_hash`.
        rows: number of chips.
        changed: path → content of the parts that differ from the previous state; None: removed.
        recipe_hash: hash of the recipe used.
        software_version: version that merged it.
    """

    hash: str
    rows: int
    changed: Mapping[str, str | None]
    recipe_hash: str
    software_version: str


def state_hash(parts: Sequence[Part]) -> str:
    """Hash of the contents and paths of parts (BLAKE2b, 16 bytes): equal hashes mean the same rows."""
    told = "".join(f"{part.path} {part.content}\n" for part in sorted(parts, key=lambda part: part.path))
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def read_manifest(store: Store) -> list[Part]:
    """The parts that the manifest lists; empty if there is no merged index yet.

    Raises:
        InputError: the manifest is invalid.
    """
    document = read_document(store)
    return [] if document is None else parts_of(document, store)


def read_history(store: Store) -> list[State]:
    """The states of the merged index, newest last; empty if there is no merged index yet.

    Raises:
        InputError: the manifest is invalid.
    """
    document = read_document(store)
    if document is None:
        return []
    try:
        history = [State(**entry) for entry in document.get("history", [])]
    except TypeError as error:
        raise not_understood(store, error) from error
    return history or [_next_state([], parts_of(document, store), document)]  # written by a version without history


def read_document(store: Store) -> dict[str, Any] | None:
    """The whole manifest; None if there is no merged index yet.

    Raises:
        InputError: the manifest is invalid.
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
    """The parts of a manifest read from a store.

    Raises:
        InputError: the manifest is invalid.
    """
    try:
        return [Part(**entry) for entry in document["partitions"]]
    except (KeyError, TypeError) as error:
        raise not_understood(store, error) from error


def not_understood(store: Store, error: Exception) -> InputError:
    """The error for an invalid manifest."""
    return InputError(
        f"{store.uri(layout.MANIFEST)}: cannot be understood ({error!r}). Delete it and materialise merged_index."
    )


def manifest_version(store: Store) -> int:
    """Version of the stored manifest; 0 if there is none."""
    try:
        return int(json.loads(store.read(layout.MANIFEST)).get("version", 0))
    except FileNotFoundError:
        return 0


def manifest_of(parts: Sequence[Part], recipe: Recipe, before: Sequence[State] = ()) -> bytes:
    """The manifest to store.

    Args:
        parts: parts of the merged index.
        recipe: the recipe used.
        before: earlier states; the current one is appended if it differs from the newest.
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
    """A document as readable JSON: lists of numbers take one line."""
    text = json.dumps(document, indent=2, sort_keys=True)
    return (re.sub(r"\[[-+.e\d\s,]+\]", lambda found: " ".join(found[0].split()), text) + "\n").encode()


def _next_state(history: Sequence[State], parts: Sequence[Part], stamp: Mapping[str, Any]) -> State:
    stood: dict[str, str | None] = {}
    for state in history:
        stood.update(state.changed)
    now: dict[str, str | None] = {part.path: part.content for part in parts}
    changed = {path: now.get(path) for path in sorted({*stood, *now}) if stood.get(path) != now.get(path)}
    rows, version = sum(part.rows for part in parts), str(stamp.get("software_version", ""))
    return State(state_hash(parts), rows, changed, str(stamp.get("recipe_hash", "")), version)
