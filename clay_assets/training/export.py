"""Chips as files: one for each chip, in a folder for each platform."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from clay_assets.errors import InputError, StorageError
from clay_assets.progress import OnProgress, no_progress
from clay_assets.storage.layout import file_name
from clay_assets.training.chip import Chip
from clay_assets.training.chipper import Chipper


def export_chips(
    chipper: Chipper,
    folder: str | Path,
    kind: str = "geotiff",
    *,
    limit: int | None = None,
    progress: OnProgress = no_progress,
) -> int:
    """Write chips to `{folder}/{platform}/{chipid}.tif` or `.npz`; each file is written atomically.

    Args:
        chipper: the Chipper that reads the chips.
        folder: created if missing; existing files of the same chips are replaced.
        kind: `geotiff`: named bands, with `valid` as internal mask. `npz`: `pixels`, `valid` and `cloud`, the model's
            inputs (`time`, `latlon`, `waves`, `gsd`), `bounds`, `crs` and names.
        limit: write at most the first `limit` chips; None: all.
        progress: called with (chips done, chips in all).

    Returns:
        Number of chips written.

    Raises:
        InputError: the kind of file is unknown, or as for `Chipper.batch`.
        StorageError: the folder is not writable.

    Examples:
        >>> from clay_assets.training import Chipper, export_chips, open_chips
        >>> chipper = Chipper(open_chips("demo/storage", "sentinel-2-l2a"))
        >>> export_chips(chipper, "demo/chips", "npz", limit=2)
        2
    """
    if kind not in EXPORTS:
        raise InputError(f"{kind}: not a kind of file. There are {', '.join(sorted(EXPORTS))}.")
    ending, write = EXPORTS[kind]
    total = len(chipper) if limit is None else min(limit, len(chipper))
    done = 0
    for batch in chipper.batches(stop=total):
        for chip in batch:
            target = Path(folder) / chip.platform / f"{file_name(chip.chipid)}{ending}"
            partial = target.with_name(f".{target.name}")  # hidden, so that no reader takes it for a chip
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                write(chip, partial)
                os.replace(partial, target)
            except OSError as error:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise StorageError(f"{target}: cannot be written ({error}). Check the folder and its disk.") from error
            done += 1
        progress(done, total)
    return done


def _npz(chip: Chip, path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            pixels=chip.pixels,
            valid=chip.valid,
            cloud=chip.cloud,
            bands=np.array(chip.bands),
            time=chip.time,
            latlon=chip.latlon,
            waves=chip.waves,
            gsd=chip.gsd,
            bounds=np.array(chip.bounds),
            crs=chip.crs,
            platform=chip.platform,
            chipid=chip.chipid,
            datetime=np.datetime64(chip.datetime.replace(tzinfo=None), "ms"),
        )


def _geotiff(chip: Chip, path: Path) -> None:
    chip.to_geotiff(path)


# Kind → file extension and writer.
EXPORTS: dict[str, tuple[str, Callable[[Chip, Path], None]]] = {"geotiff": (".tif", _geotiff), "npz": (".npz", _npz)}
