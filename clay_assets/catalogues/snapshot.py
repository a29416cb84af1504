"""A STAC-GeoParquet snapshot as a catalogue: a file, a folder or a prefix below `s3://`.

Thousands of requests are answered in one pass: Parquet filters on collection, time and bounding box, then exact
geometry and the requests' property filters on what is left. Needs no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import shapely
from numpy.typing import NDArray
from pyarrow import fs

from clay_assets.catalogues.base import Answer, answer_of, read_candidate
from clay_assets.errors import ClayError, InputError, SourceError
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.sources.downloads import names_in
from clay_assets.stac import Item
from clay_assets.storage.stac_geoparquet import items_of
from clay_assets.transport.access import Access
from clay_assets.transport.locations import is_s3, join, local_path, split_s3

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
        access: how it is accessed.

    Raises:
        InputError: there is no such snapshot, or it is no STAC-GeoParquet.
    """

    def __init__(self, location: str, access: Access | None = None) -> None:
        self.location = location
        # A file without rows need not have the columns of the others.
        datasets = _open_files(location, access or Access())
        self.files = [_SnapshotFile(dataset) for dataset in datasets if dataset.count_rows()]
        for file in self.files:
            where = f"{location}: {file.dataset.files[0]} is not STAC-GeoParquet"
            remedy = "Write it with stac-geoparquet or rustac."
            missing = [name for name in NEEDED if name not in file.names]
            if missing:
                raise InputError(f"{where} (no column {', '.join(missing)}). {remedy}")
            odd = [name for name, fits in NEEDED.items() if not fits(file.dataset.schema.field(name).type)]
            if odd:
                raise InputError(f"{where} (type of column {', '.join(odd)}). {remedy}")

    def search(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers after one pass over the snapshot. Candidates hold what is needed to choose."""
        if not requests:
            return
        geometries = [request.geometry for request in requests]
        tree = shapely.STRtree(geometries)
        starts = np.array([_milliseconds(request.start) for request in requests])
        ends = np.array([_milliseconds(request.end) for request in requests])
        alternatives = _Alternatives(requests)
        found: dict[int, dict[str, Item | str]] = {number: {} for number in range(len(requests))}
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
                documents = dict(zip(wanted.tolist(), _documents(platform, batch, shapes, wanted), strict=True))
                candidates = {row: read_candidate(platform, document) for row, document in documents.items()}
                for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
                    found[number].setdefault(documents[row]["id"], candidates[row])
        for number, request in enumerate(requests):
            yield answer_of(request, found.pop(number).values())

    def complete(self, platform: AnyPlatform, items: Sequence[Item]) -> list[Item]:
        """The chosen candidates with all that the snapshot says of them."""
        if not items:
            return []
        ids = [item["id"] for item in items]
        whole: dict[str, Item] = {}
        for file in self.files:
            for item in file.items(platform, ids):
                whole.setdefault(item["id"], platform.read_item(item))  # of two with one id the first, as in `search`
        return list(whole.values())


class _SnapshotFile:
    """One file of a snapshot. Each has its own schema: files need not know the same properties and assets."""

    def __init__(self, dataset: ds.Dataset) -> None:
        self.dataset = dataset
        self.names = set(dataset.schema.names)

    def scan(
        self, platform: AnyPlatform, first: int, last: int, bounds: NDArray[np.float64]
    ) -> Iterator[pa.RecordBatch]:
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

    def items(self, platform: AnyPlatform, ids: Sequence[str]) -> list[Item]:
        """Whole items by their ids."""
        return items_of(self.dataset.to_table(filter=pc.field("id").isin(ids) & self._of(platform)))

    def _of(self, platform: AnyPlatform) -> pc.Expression:
        if platform.scenes.collection is not None and "collection" in self.names:
            return pc.field("collection") == platform.scenes.collection
        return pc.scalar(True)

    def _moment(self) -> pc.Expression:
        if "start_datetime" in self.names:
            return pc.coalesce(pc.field("datetime"), pc.field("start_datetime"))
        return pc.field("datetime")

    def _columns(self, platform: AnyPlatform) -> dict[str, pc.Expression]:
        columns = {
            "id": pc.field("id"),
            "geometry": pc.field("geometry"),
            "moment": self._moment().cast(pa.timestamp("ms", tz="UTC"), safe=False),
        }
        for name in platform.rules.property_names:
            if name in self.names:
                columns[f"property {name}"] = pc.field(name)
        known = {field.name for field in self.dataset.schema.field("assets").type}
        for name in (*platform.asset_names, *platform.assets.aliases):
            if name in known:
                columns[f"asset {name}"] = pc.field("assets", name, "href")
        return columns

    def _prefilter(self, platform: AnyPlatform, first: int, last: int, bounds: NDArray[np.float64]) -> pc.Expression:
        microseconds = pa.timestamp("us", tz="UTC")
        since, until = (pa.scalar(moment * 1000, microseconds) for moment in (first, last))
        condition = self._of(platform) & (self._moment() >= since) & (self._moment() < until)
        west, south, east, north = map(float, bounds)
        xmin, xmax = pc.field("bbox", "xmin"), pc.field("bbox", "xmax")
        crossing = xmin > xmax  # an item across the antimeridian, RFC 7946
        overlapping = ((xmin <= east) & (xmax >= west)) | crossing
        return condition & overlapping & (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south)


def _documents(
    platform: AnyPlatform, batch: pa.RecordBatch, shapes: NDArray[Any], rows: NDArray[np.intp]
) -> list[Item]:
    table = batch.take(pa.array(rows)).drop_columns("geometry").to_pydict()
    properties, assets = _named(table, "property "), _named(table, "asset ")
    return [
        {
            "id": item_id,
            "collection": platform.scenes.collection,
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


def _open_files(location: str, access: Access) -> list[ds.Dataset]:
    single = location.endswith(".parquet")
    if is_s3(location):
        bucket, key = split_s3(location)
        filesystem, root = access.s3().filesystem(), f"{bucket}/"
    else:
        path = local_path(location)
        single = single or path.is_file()
        filesystem, root, key = fs.LocalFileSystem(), "", str(path)
    try:
        names = [key] if single else names_in(location, access, suffix=".parquet", recursive=True)
        if not names:
            raise InputError(f"{location}: no .parquet file here. Give a STAC-GeoParquet file, or a folder of them.")
        paths = [root + key] if single else [f"{root}{join(key, name) if key else name}" for name in names]
        return [ds.dataset(path, filesystem=filesystem, format="parquet") for path in paths]
    except FileNotFoundError as error:
        raise InputError(f"{location}: file not found. Check the address of the snapshot.") from error
    except ClayError:
        raise
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{location}: cannot be read as STAC-GeoParquet ({error}). Check the address.") from error
