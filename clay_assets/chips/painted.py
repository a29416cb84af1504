"""What the gate paints for each part of the merged index, stored so that merges need not read unchanged parts.

It is only valid for the part that it was made from, identified by the content in the manifest and the file's current
footer, which also detects a replacement of the same size.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.chips.leaks import PAINTED, Numbers, Painted, distinct
from clay_assets.chips.manifest import Part
from clay_assets.recipes import Recipe
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import COMPRESSION, stamp_of, stamped
from clay_assets.storage.stores import Store

TAIL = 8  # bytes at the end of a Parquet file: the size of its footer, and `PAR1`


@dataclass(frozen=True)
class PaintedPart:
    """What the gate paints for a part.

    Attributes:
        boxes: see `leaks.painted`.
        splits: split → chips.
        footer: hash of the part's Parquet footer; empty if it has none.
    """

    boxes: Painted
    splits: Mapping[str, int]
    footer: str


def store_painted(store: Store, part: Part, found: PaintedPart, recipe: Recipe) -> None:
    """Write what the gate paints for a published part."""
    boxes = np.concatenate(found.boxes)
    split = np.repeat(np.arange(len(found.boxes), dtype=np.uint8), [len(one) for one in found.boxes])
    counts = json.dumps(dict(found.splits), sort_keys=True)
    stamp = {**recipe.stamp(), "content": part.content, "footer": found.footer, "splits": counts}
    table = pa.table({"split": split, "box": boxes}).replace_schema_metadata(stamped(stamp))
    sink = io.BytesIO()
    sorted_numbers = {"use_dictionary": ["split"], "column_encoding": {"box": "DELTA_BINARY_PACKED"}}
    pq.write_table(table, sink, compression=COMPRESSION, **sorted_numbers)
    store.write(layout.painted(part.platform, part.year), sink.getvalue())


def stored_painted(store: Store, part: Part) -> PaintedPart | None:
    """What is stored for a part; None if it belongs to another part or cannot be read."""
    try:
        table = pq.read_table(io.BytesIO(store.read(layout.painted(part.platform, part.year))))
        stamp = stamp_of(table.schema)
        if stamp["content"] != part.content:
            return None
        split, boxes = table["split"].to_numpy(), table["box"].to_numpy()
        own = [boxes[split == number] for number in range(len(PAINTED))]
        return PaintedPart(own, json.loads(stamp["splits"]), stamp["footer"])
    except (FileNotFoundError, pa.ArrowException, OSError, KeyError, ValueError):
        return None


def joined(some: Sequence[Painted]) -> list[Numbers]:
    """Combine what was painted in several runs, without duplicate boxes."""
    return [distinct(np.concatenate(own)) for own in zip(*some, strict=True)]


def footer_of(store: Store, key: str) -> str:
    """Hash of a Parquet file's footer; empty if there is none."""
    try:
        with store.filesystem().open_input_file(key) as file:
            size = file.size()
            tail = file.read_at(TAIL, size - TAIL) if size > TAIL else b""
            length = int.from_bytes(tail[:4], "little")
            if tail[4:] != b"PAR1" or length > size - TAIL:
                return ""
            return hashlib.blake2b(file.read_at(length, size - TAIL - length), digest_size=16).hexdigest()
    except OSError:
        return ""
