"""The snapshot end of a catalogue: STAC-GeoParquet, as a file, a folder or below `s3://`.

Thousands of requests are answered in one pass: Parquet filters on collection, time and bounding box, then exact
geometry and the requests' property filters on what is left. Needs no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import shapely
from numpy.typing import NDArray

from clay_assets.catalogues.search import Answer
from clay_assets.errors import ClayError, InputError, SourceError
from clay_assets.platforms.base import Item, Platform, Request
from clay_assets.storage.stac_geoparquet import items_of
from clay_assets.storage.stores import open_store

NEEDED = {  # column → whether its type can be searched
    "id": lambda kind: True,
    "geometry": lambda kind: True,
    "bbox": pa.types.is_struct,
    "datetime": lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    "assets": pa.types.is_struct,
}


class SnapshotCatalogue:
    """A STAC-GeoParquet snapshot.

    Args:
        location: a Parquet file, a folder of them, or `s3://bucket/key-or-prefix`.

    Raises:
        InputError: there is no such snapshot, or it is no STAC-GeoParquet.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        # A file without rows need not have the columns of the others.
        self.files = [_SnapshotFile(dataset) for dataset in _open_files(location) if dataset.count_rows()]
        for file in self.files:
            missing = [name for name in NEEDED if name not in file.names]
            if missing:
                raise InputError(
                    f"{location}: {file.dataset.files[0]} is no STAC-GeoParquet, it has no column {', '.join(missing)}."
                )
            odd = [name for name, fits in NEEDED.items() if not fits(file.dataset.schema.field(name).type)]
            if odd:
                raise InputError(
                    f"{location}: {file.dataset.files[0]} is no STAC-GeoParquet, its column {', '.join(odd)} has "
                    "another type. Write it with stac-geoparquet or rustac."
                )

    def search(self, platform: Platform, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers after one pass over the snapshot. Candidates hold what is needed to choose."""
        if not requests:
            return
        geometries = [request.geometry for request in requests]
        tree = shapely.STRtree(geometries)
        starts = np.array([_milliseconds(request.start) for request in requests])
        ends = np.array([_milliseconds(request.end) for request in requests])
        alternatives = _Alternatives(requests)
        found: dict[int, dict[str, Item]] = {number: {} for number in range(len(requests))}
        bounds = shapely.total_bounds(geometries)
        for file in self.files:
            for batch in file.scan(platform, int(starts.min()), int(ends.max()), bounds):
                shapes = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False), on_invalid="ignore")
                rows, numbers = tree.query(shapes, predicate="intersects")
                moments = batch["moment"].cast(pa.int64()).to_numpy()[rows]
                inside = (moments >= starts[numbers]) & (moments < ends[numbers])
                inside &= alternatives.match(batch, rows, numbers)
                rows, numbers = rows[inside], numbers[inside]
                wanted = np.unique(rows)
                items = dict(zip(wanted.tolist(), _candidates(platform, batch, shapes, wanted), strict=True))
                for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
                    found[number].setdefault(items[row]["id"], items[row])
        for number, request in enumerate(requests):
            yield Answer(request, list(found.pop(number).values()))

    def complete(self, platform: Platform, items: Sequence[Item]) -> list[Item]:
        """The chosen candidates with all that the snapshot says of them."""
        if not items:
            return []
        ids = [item["id"] for item in items]
        whole: dict[str, Item] = {}
        for file in self.files:
            for item in file.items(platform, ids):
                whole.setdefault(item["id"], item)  # of two with one id the first, as in `search`
        return list(whole.values())


class _SnapshotFile:
    """One file of a snapshot. Each has its own schema: files need not know the same properties and assets."""

    def __init__(self, dataset: ds.Dataset) -> None:
        self.dataset = dataset
        self.names = set(dataset.schema.names)

    def scan(self, platform: Platform, first: int, last: int, bounds: NDArray[np.float64]) -> Iterator[pa.RecordBatch]:
        """The items of a collection between two moments (milliseconds since 1970) that touch some bounds."""
        scanner = self.dataset.scanner(
            columns=self._columns(platform), filter=self._prefilter(platform, first, last, bounds)
        )
        try:
            for batch in scanner.to_batches():
                if batch.num_rows:
                    yield batch
        except (OSError, pa.ArrowException) as error:
            raise SourceError(
                f"{self.dataset.files[0]}: the snapshot could not be read ({error}). "
                "Run again; if it persists, the file is damaged."
            ) from error

    def items(self, platform: Platform, ids: Sequence[str]) -> list[Item]:
        """Whole items by their ids."""
        return items_of(self.dataset.to_table(filter=pc.field("id").isin(ids) & self._of(platform)))

    def _of(self, platform: Platform) -> pc.Expression:
        if platform.collection is not None and "collection" in self.names:
            return pc.field("collection") == platform.collection
        return pc.scalar(True)

    def _moment(self) -> pc.Expression:
        if "start_datetime" in self.names:
            return pc.coalesce(pc.field("datetime"), pc.field("start_datetime"))
        return pc.field("datetime")

    def _columns(self, platform: Platform) -> dict[str, pc.Expression]:
        columns = {
            "id": pc.field("id"),
            "geometry": pc.field("geometry"),
            "moment": self._moment().cast(pa.timestamp("ms", tz="UTC"), safe=False),
        }
        for name in platform.properties:
            if name in self.names:
                columns[f"property {name}"] = pc.field(name)
        known = {field.name for field in self.dataset.schema.field("assets").type}
        for name in (*platform.assets, *platform.aliases):
            if name in known:
                columns[f"asset {name}"] = pc.field("assets", name, "href")
        return columns

    def _prefilter(self, platform: Platform, first: int, last: int, bounds: NDArray[np.float64]) -> pc.Expression:
        microseconds = pa.timestamp("us", tz="UTC")
        since, until = (pa.scalar(moment * 1000, microseconds) for moment in (first, last))
        condition = self._of(platform) & (self._moment() >= since) & (self._moment() < until)
        west, south, east, north = map(float, bounds)
        xmin, xmax = pc.field("bbox", "xmin"), pc.field("bbox", "xmax")
        crossing = xmin > xmax  # an item across the antimeridian, RFC 7946
        overlapping = ((xmin <= east) & (xmax >= west)) | crossing
        return condition & overlapping & (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south)


def _candidates(platform: Platform, batch: pa.RecordBatch, shapes: NDArray[Any], rows: NDArray[np.intp]) -> list[Item]:
    table = batch.take(pa.array(rows)).drop_columns("geometry").to_pydict()
    properties, assets = _named(table, "property "), _named(table, "asset ")
    return [
        {
            "id": item_id,
            "collection": platform.collection,
            "geometry": shapely.geometry.mapping(shape),
            "properties": {**_present(properties, row), "datetime": moment},
            "assets": {name: {"href": href} for name, href in _present(assets, row).items()},
        }
        for row, (item_id, moment, shape) in enumerate(zip(table["id"], table["moment"], shapes[rows], strict=True))
    ]


def _present(columns: Mapping[str, list[Any]], row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in columns.items() if values[row] is not None}


class _Alternatives:
    """The property filters of all requests, laid out so that whole columns can be compared."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.layers: list[dict[str, NDArray[Any]]] = []
        self.given: list[NDArray[np.bool_]] = []
        for layer in range(max((len(request.filters) for request in requests), default=0)):
            here = [request.filters[layer] if layer < len(request.filters) else None for request in requests]
            names = sorted({name for wanted in here if wanted for name in wanted})
            self.layers.append({name: np.array([(w or {}).get(name) for w in here], dtype=object) for name in names})
            self.given.append(np.array([wanted is not None for wanted in here]))
        self.free = np.array([not request.filters for request in requests])

    def match(self, batch: pa.RecordBatch, rows: NDArray[np.intp], numbers: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether item `rows[i]` fulfils one of the alternatives of request `numbers[i]`."""
        matched = self.free[numbers]
        for layer, given in zip(self.layers, self.given, strict=True):
            fulfilled = given[numbers]
            for name, wanted in layer.items():
                column = f"property {name}"
                if column in batch.schema.names:
                    values = np.array(batch[column].to_pylist(), dtype=object)[rows]
                else:
                    values = np.full(len(rows), None, dtype=object)
                asked = wanted[numbers]
                fulfilled &= (values == asked) | (asked == None)  # noqa: E711 — elementwise
            matched = matched | fulfilled
        return matched


def _named(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _open_files(location: str) -> list[ds.Dataset]:
    try:
        if location.startswith("s3://"):
            bucket, _, key = location.removeprefix("s3://").partition("/")
            store = open_store(f"s3://{bucket}")
            keys = [key] if key.endswith(".parquet") else list(store.list(key, ".parquet"))
        else:
            path = Path(location).expanduser().absolute()
            store = open_store(path if path.is_dir() else path.parent)
            keys = list(store.list("", ".parquet")) if path.is_dir() else [path.name]
        if not keys:
            raise InputError(f"{location}: holds no .parquet file; a snapshot is STAC-GeoParquet.")
        return [ds.dataset(key, filesystem=store.filesystem(), format="parquet") for key in keys]
    except ClayError:
        raise
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{location}: cannot be read as STAC-GeoParquet ({error}).") from error
