"""Read the file headers of a cell's scenes: each once, resumable after a kill, with bad scenes set aside.

The file of a scene's headers carries a fingerprint of its inputs: the addresses of the scene's files, the sizes and
times of local files, and the item if it affects the radiometry. Later runs keep the file while the fingerprint is the
same. Remote files are not checked for changes; reading a chip checks the ETag and raises an error. To re-read a scene's
headers, delete its file below `training/cog_headers`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clay_assets.chips.cells import FAILED
from clay_assets.errors import StorageError
from clay_assets.executors import failure_text, run_bounded
from clay_assets.platforms import platform_of
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.offsets import radiometric_offset
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.sources.cog import CogHeader
from clay_assets.sources.rasters import side_cars
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stores import Store
from clay_assets.training.cells import READ, HeadersCell
from clay_assets.training.scene_files import (
    SceneFiles,
    decode_scene_files,
    encode_scene_files,
    hrefs_of,
    read_scene_files,
)
from clay_assets.training.versions import HEADERS_VERSION
from clay_assets.transport.locations import is_remote, local_path
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

logger = logging.getLogger(__name__)

LEDGER_TYPES = {
    "item_id": "string",
    "outcome": "string",
    "files": "int32",
    "images": "int32",
    "blocks": "int64",
    "bytes": "int64",
    "header_bytes": "int64",
    "fallbacks": "string",
    "radiometric_offset": "Int32",
    "offset_evidence": "string",
    "processing_baseline": "string",
    "flagged_offset": "Int32",
    "projected_offset": "float64",
    "offset_contradiction": "string",
    "fingerprint": "string",
    "error": "string",
}
ASSET_COLUMNS = ("asset", "files", "dtype", "compression", "block", "blocks", "bytes")
OTHERS = "read through rasterio"


@dataclass(frozen=True)
class HeadersJob:
    """What one worker needs for one scene; small enough to be sent to another machine."""

    item: Item
    platform: str
    key: str
    store: Store
    stamp: Mapping[str, str]


@dataclass(frozen=True)
class _Done:
    """A finished scene: its ledger row, a summary of its files, and whether its headers already existed."""

    row: dict[str, Any]
    assets: list[dict[str, Any]]
    kept: bool


def read_headers(
    platform: str,
    year: int,
    items: Sequence[Item],
    store: Store,
    recipe: Recipe,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> HeadersCell:
    """Read the missing headers of a cell's scenes, and decide on each scene's radiometry.

    Args:
        platform: platform key.
        year: partition.
        items: scenes with readable hrefs.
        store: store to write the headers to.
        recipe: the recipe to stamp the files with.
        executor: runs scenes in parallel; the workers write the files.
        in_flight: scenes submitted concurrently.
        progress: called with (scenes done, scenes in all).

    Returns:
        The cell's headers, its ledger ordered by item id.

    Raises:
        StorageError: the store is not writable, so the other scenes are not tried.
    """
    stamp = recipe.stamp()
    jobs = (HeadersJob(item, platform, layout.headers(platform, year, item["id"]), store, stamp) for item in items)
    rows, assets, kept = [], [], 0
    for done, (job, future) in enumerate(run_bounded(executor, read_one, jobs, in_flight), start=1):
        try:
            found = future.result()
        except StorageError:
            raise
        except Exception as error:  # whatever a library raises on a bad file must not stop the other scenes
            rows.append(_row(job.item["id"], FAILED, error=failure_text(error, job.item["id"], logger)))
        else:
            rows.append(found.row)
            assets += found.assets
            kept += found.kept
        progress(done, len(items))
    if kept:
        logger.info("%s %d: headers of %d of %d scenes are kept", platform, year, kept, len(items))
    ledger = pd.DataFrame(rows, columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)
    order = platform_of(platform).asset_names
    ordered = ledger.sort_values("item_id", ignore_index=True)
    return HeadersCell(platform, year, store, ordered, kept, _by_asset(assets, order))


def read_one(job: HeadersJob) -> _Done:
    """Read the headers of one scene's files and write them; existing ones are kept if current."""
    source = platform_of(job.platform).with_access(job.store.access)
    item = source.read_item(job.item)
    fingerprint = fingerprint_of(source, item)
    kept = _kept(job, fingerprint)
    if kept is not None:
        return kept
    for attempt in retrying(WORK_ATTEMPTS):
        with attempt:
            files = read_scene_files(source, item, radiometric_offset)
    content = encode_scene_files(files, {**job.stamp, "fingerprint": fingerprint})
    job.store.write(job.key, content)
    return _done(files, len(content), fingerprint, kept=False)


def fingerprint_of(platform: AnyPlatform, item: Item) -> str:
    """32 hexadecimal digits that change with a scene's headers, as far as that is known without a request.

    Args:
        platform: the scene's platform.
        item: normalised (see `Platform.read_item`).
    """
    hrefs = hrefs_of(platform, item)
    local = sorted({href for href in hrefs.values() if not is_remote(href) and not href.startswith("/vsi")})
    paths = [path for href in local for path in (local_path(href), *side_cars(href))]
    told = {name: item[name] for name in ("properties", "assets")} if platform.radiometry else {}
    measured = {name: platform.measured(item, name) for name in hrefs}
    basis = [HEADERS_VERSION, item["id"], hrefs, measured, told, {str(path): _state(path) for path in paths}]
    return hashlib.blake2b(json.dumps(basis, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _state(path: Any) -> list[int] | None:
    """Size and modification time of a local file; None if unknown."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _kept(job: HeadersJob, fingerprint: str) -> _Done | None:
    """The stored result, if it is what this job would write."""
    try:
        content = job.store.read(job.key)
        files, stamp = decode_scene_files(content, job.platform)
    except (FileNotFoundError, ValueError):
        return None
    if stamp.get("fingerprint") != fingerprint:
        return None
    return _done(files, len(content), fingerprint, kept=True)


def _done(files: SceneFiles, header_bytes: int, fingerprint: str, *, kept: bool) -> _Done:
    told = files.radiometry
    unique = {files.hrefs[name]: header for name, header in files.headers.items()}
    fallbacks = Counter(why for header in unique.values() if (why := why_through_rasterio(header)) is not None)
    row = _row(
        files.item_id,
        READ,
        files=len(unique),
        images=sum(len(list(header.images)) for header in files.headers.values()),
        blocks=sum(len(header.block_offsets) for header in unique.values()),
        bytes=sum(header.size for header in unique.values()),
        header_bytes=header_bytes,
        fallbacks=json.dumps(dict(sorted(fallbacks.items()))) if fallbacks else None,
        fingerprint=fingerprint,
        **(
            {}
            if told is None
            else {
                "radiometric_offset": told.offset,
                "offset_evidence": told.evidence,
                "processing_baseline": told.baseline,
                "flagged_offset": told.flagged,
                "projected_offset": told.projected,
                "offset_contradiction": told.contradiction,
            }
        ),
    )
    return _Done(row, [_like(name, header) for name, header in files.headers.items()], kept)


def why_through_rasterio(header: CogHeader) -> str | None:
    """Why pixels or mask of a file are read through rasterio; None if they are not."""
    return header.fallback or (header.mask.fallback if header.mask is not None else None)


def _like(name: str, header: CogHeader) -> dict[str, Any]:
    return {
        "asset": name,
        "dtype": header.dtype,
        "compression": OTHERS if header.fallback else _compression(header.compression),
        "block": f"{header.block_width} × {header.block_height}",
        "blocks": len(header.block_offsets),
        "bytes": header.size,
    }


def _compression(code: int) -> str:
    import tifffile

    try:
        return str(tifffile.COMPRESSION(code).name.lower())
    except ValueError:
        return str(code)


def _by_asset(found: Sequence[Mapping[str, Any]], order: Sequence[str]) -> pd.DataFrame:
    """One row per asset, in the platform's order; where its files differ, all their values."""
    if not found:
        return pd.DataFrame(columns=list(ASSET_COLUMNS))
    several = dict.fromkeys(("dtype", "compression", "block"), lambda values: ", ".join(sorted(set(values))))
    grouped = pd.DataFrame(found).groupby("asset")
    table = grouped.agg({**several, "blocks": "sum", "bytes": "sum"})
    table["files"] = grouped.size()
    return table.reindex([name for name in order if name in table.index]).reset_index()[list(ASSET_COLUMNS)]


def _row(item_id: str, outcome: str, **values: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("files", "images", "blocks", "bytes", "header_bytes"), 0)
    known = {**dict.fromkeys(LEDGER_TYPES), **counts, "fingerprint": ""}
    return {**known, "item_id": item_id, "outcome": outcome, **values}
