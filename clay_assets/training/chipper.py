"""Pixels of chips, read straight from their scenes' files.

The headers stored by `cog_headers` give the position of each block, so no file is opened: the blocks of a batch are
fetched and decoded once, in file order, and copied to the chips in the order requested.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from clay_assets.errors import InputError
from clay_assets.platforms import platform_of
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.model import Band
from clay_assets.platforms.radiometry import harmonise
from clay_assets.sources.cog import BlockReader, BlockRequest, Counters
from clay_assets.training.chip import Chip, ChipBatch
from clay_assets.training.layers import (
    CHIP_SIZE,
    Scene,
    bounds_of,
    finest_of,
    latlon_of,
    layers_of,
    read_masks,
    transforms_of,
    windows_of,
)
from clay_assets.training.scene_files import SceneFiles, stored_scene_files
from clay_assets.training.selection import COLUMNS

if TYPE_CHECKING:
    import pystac

    from clay_assets.training.balance import Balanced
    from clay_assets.training.labelled import ChipsAt
    from clay_assets.training.selection import Chips

BATCH = 64  # chips that iteration reads at a time
SCENES_KEPT = 1024  # whose headers are cached, least recently used dropped first

Radiometry = Literal["harmonised", "stored"]


class Source(Protocol):
    """Where chips come from: a selection of the merged index, or a scene."""

    def __len__(self) -> int: ...

    def rows(self, indices: ArrayLike, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of some chips, in the order requested."""
        ...

    def find(self, item_id: str, x: int, y: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a scene's chip, one for each platform that has it."""
        ...


class Chipper:
    """Reads the pixels of chips.

    A Chipper can be shared between threads and sent to other processes; each process has its own cache.

    Args:
        chips: a selection of the merged index, or a balanced one.
        bands: names of the model's bands, in the order wanted; None: all bands of the platform.
        radiometry: "harmonised": the offset of 1000 that Sentinel-2 scenes may have since baseline 04.00 is subtracted;
            still uint16, with nodata 0 and valid numbers from 1. "stored": the numbers in the files.
        threads: threads that decode blocks.
        in_flight: concurrent requests to remote hosts.
        cache_bytes: size of the cache of decoded blocks.
        checksums: verify the checksum of each deflated block. If False, shuffled chips are read up to 1.6 times as
            fast, since blocks are only decoded down to the last row needed, but damaged pixels may go unnoticed.

    Raises:
        InputError: a platform of the selection lacks one of the bands.

    Examples:
        >>> from clay_assets import Chipper, open_chips
        >>> chips = open_chips("demo/storage", "sentinel-2-l2a")
        >>> chipper = Chipper(chips, bands=["red", "green", "blue"], threads=2)
        >>> chipper[0].pixels.shape
        (3, 256, 256)
        >>> chipper.batch([4, 0]).pixels.shape
        (2, 3, 256, 256)
    """

    def __init__(
        self,
        chips: Chips | Balanced,
        *,
        bands: Sequence[str] | None = None,
        radiometry: Radiometry = "harmonised",
        threads: int = 1,
        in_flight: int = 16,
        cache_bytes: int = 256 << 20,
        checksums: bool = True,
    ) -> None:
        self._begin(chips, None, bands, radiometry, threads, in_flight, cache_bytes, checksums)
        for key in sorted({part.platform for part in chips.parts}):
            self._bands_of(platform_of(key))

    def _begin(
        self,
        chips: Source,
        scene: tuple[AnyPlatform, SceneFiles] | None,
        bands: Sequence[str] | None,
        radiometry: Radiometry,
        threads: int,
        in_flight: int,
        cache_bytes: int,
        checksums: bool,
    ) -> None:
        if radiometry not in ("harmonised", "stored"):
            raise InputError(f'radiometry {radiometry!r}: not known. Say "harmonised" or "stored".')
        self.chips: Any = chips
        self.bands = None if bands is None else tuple([bands] if isinstance(bands, str) else bands)
        self.radiometry: Radiometry = radiometry
        self._scene = scene
        self._threads, self._in_flight, self._cache_bytes, self._checksums = threads, in_flight, cache_bytes, checksums
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, tuple[AnyPlatform, BlockReader]] = {}
        self._files: OrderedDict[tuple[str, int, str], SceneFiles] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_readers", "_files")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @classmethod
    def of_item(
        cls,
        item: pystac.Item,
        platform: str,
        *,
        bbox: Sequence[float] | None = None,
        bands: Sequence[str] | None = None,
        radiometry: Radiometry = "harmonised",
        threads: int = 1,
        in_flight: int = 16,
        cache_bytes: int = 256 << 20,
        checksums: bool = True,
    ) -> Chipper:
        """Chips of a scene that is not in an index, such as for inference; nothing is stored.

        The headers of its files are read now, pixels on demand. All whole chips of the scene are included, row by row
        from the upper left, however cloudy or empty: check `valid` and `cloud`.

        Args:
            item: a STAC item with readable hrefs.
            platform: platform key.
            bbox: west, south, east, north in degrees; chips that touch it are read. West > east lies across ±180; None:
                all.
            bands: as for `Chipper`.
            radiometry: as for `Chipper`; any offset is detected from the pixels of overviews.
            threads: as for `Chipper`.
            in_flight: as for `Chipper`.
            cache_bytes: as for `Chipper`.
            checksums: as for `Chipper`.

        Raises:
            InputError: the item lacks an asset, a file of it cannot be read, or no chip touches the box.
            SourceError: a remote file is temporarily unreadable.
        """
        from clay_assets.training.of_item import SceneChips, files_of_item

        source = platform_of(platform)
        files, moment = files_of_item(source, item)
        chips = SceneChips(files, finest_of(source, files), moment, bbox)
        chipper = cls.__new__(cls)
        chipper._begin(chips, (source, files), bands, radiometry, threads, in_flight, cache_bytes, checksums)
        chipper._bands_of(source)
        return chipper

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.chips)

    def __repr__(self) -> str:
        return f"Chipper({self.chips!r}, bands={self.bands}, radiometry={self.radiometry!r})"

    def __getitem__(self, index: int) -> Chip:
        """One chip of the selection.

        Raises:
            IndexError: the index is out of range.
            InputError, SourceError: as for `batch`.
        """
        return self.batch([index])[0]

    def __iter__(self) -> Iterator[Chip]:
        """All chips in order."""
        for batch in self.batches():
            yield from batch

    def batches(self, size: int = BATCH, *, stop: int | None = None) -> Iterator[ChipBatch]:
        """All chips in order, or the first `stop`, in batches of one platform each.

        Raises:
            InputError, SourceError: as for `batch`.
        """
        if size < 1:
            raise InputError(f"batches of {size} chips: too few. Ask for at least one.")
        start, end = 0, len(self) if stop is None else min(stop, len(self))
        while start < end:
            rows = self.chips.rows(np.arange(start, min(start + size, end)), COLUMNS)
            same = rows["platform"].combine_chunks().dictionary_encode().indices.to_numpy()
            count = int(np.argmax(same != same[0])) or len(same)
            yield self._batch(rows.slice(0, count))
            start += count

    def chip(self, item_id: str, x: int, y: int) -> Chip:
        """The chip in column `x` and row `y` of a scene.

        Raises:
            InputError: the chip is not in the selection, or several platforms have one of this name.
        """
        rows = self.chips.find(item_id, x, y, COLUMNS)
        if rows.num_rows != 1:
            found = ", ".join(sorted(set(rows["platform"].to_pylist())))
            many = f"several chips ({found}). Select one platform." if found else "no such chip. Select more chips."
            raise InputError(f"{item_id}-{x}-{y}: the selection has {many}")
        return self._batch(rows)[0]

    def at(self, points: Any, platform: str | None = None, dates: Any = None) -> ChipsAt:
        """Chips of the selection at given points, such as labelled sites.

        If several chips contain a point, the one nearest in time is taken if dates are given, then the one with the
        least cloud and nodata.

        Args:
            points: a GeoDataFrame or GeoSeries of points, shapely points in EPSG:4326, or longitudes and latitudes,
                (n, 2).
            platform: only chips of this platform; None: the selection's only platform.
            dates: one date for all points or one for each; None: any.

        Raises:
            InputError: points outside the valid range, invalid dates, or several platforms.
        """
        from clay_assets.training.labelled import ChipsAt, chips_at, points_of
        from clay_assets.training.selection import Chips

        if not isinstance(self.chips, Chips):
            raise InputError("at: looks in a selection of the merged index. Make the Chipper from `open_chips`.")
        chips = self.chips if platform is None else self.chips.of_platform(platform)
        keys = sorted({part.platform for part in chips.parts})
        if len(keys) != 1:
            raise InputError(f"at: chips of {', '.join(keys) or 'no platform'}. Say which platform you want.")
        chipper = copy(self)
        chipper.chips = chips
        found = points_of(points)
        return ChipsAt(chipper, found, *chips_at(chips, found, dates))

    def batch(self, indices: ArrayLike, *, masks: bool = False) -> ChipBatch:
        """Read some chips, in the order that uses blocks best, and return them in the order requested.

        Args:
            indices: indices in the selection, in any order; repeats are allowed.
            masks: also read `valid` and `cloud` now rather than on first use.

        Raises:
            IndexError: an index is out of range.
            InputError: chips of several platforms; missing headers; a file that is missing, damaged, or changed since
                its header was read; a band that does not align with the finest grid. Names the scene or the file.
            SourceError: a remote file is temporarily unreadable.
        """
        batch = self._batch(self.chips.rows(indices, COLUMNS))
        if masks:
            _ = batch.valid
        return batch

    @property
    def counters(self) -> Counters:
        """What has been read so far, over all platforms."""
        total = Counters()
        for _, reader in self._readers.values():
            for name, number in vars(reader.counters).items():
                setattr(total, name, getattr(total, name) + number)
        return total

    # --- lookups ----------------------------------------------------------------------------------

    def _reader_of(self, key: str) -> tuple[AnyPlatform, BlockReader]:
        with self._lock:
            if key not in self._readers:
                if self._scene is not None:
                    platform = self._scene[0]
                else:
                    platform = platform_of(key).with_access(self.chips.store.access)
                reader = BlockReader(
                    platform.files.access,
                    cache_bytes=self._cache_bytes,
                    checksums=self._checksums,
                    threads=self._threads,
                    in_flight=self._in_flight,
                )
                self._readers[key] = platform, reader
            return self._readers[key]

    def _bands_of(self, platform: AnyPlatform) -> list[Band]:
        known = {band.name: band for band in platform.model_input.bands}
        if self.bands is None:
            return list(known.values())
        unknown = [name for name in self.bands if name not in known]
        if unknown or not self.bands:
            listed = ", ".join(unknown) or "none"
            raise InputError(
                f"bands {listed}: not bands of {platform.title}, which has {', '.join(known)}. Ask for these."
            )
        return [known[name] for name in self.bands]

    def _files_of(self, scenes: Sequence[tuple[str, int, str]]) -> list[SceneFiles]:
        """The files of some scenes; headers that are not cached are read concurrently."""
        if self._scene is not None:
            return [self._scene[1]] * len(scenes)
        with self._lock:
            found = {scene: self._files[scene] for scene in scenes if scene in self._files}
        missing = [scene for scene in scenes if scene not in found]
        if missing:
            read = partial(_stored, self.chips.store)
            with ThreadPoolExecutor(min(self._in_flight, len(missing))) as pool:
                found.update(zip(missing, pool.map(read, missing), strict=True))
        with self._lock:
            for scene in scenes:
                self._files[scene] = found[scene]
                self._files.move_to_end(scene)
            while len(self._files) > SCENES_KEPT:
                self._files.popitem(last=False)
        return [found[scene] for scene in scenes]

    # --- reading ----------------------------------------------------------------------------------

    def _batch(self, rows: pa.Table) -> ChipBatch:
        keys = rows["platform"].unique().to_pylist()
        if len(keys) != 1:
            several = f"chips of {', '.join(sorted(keys))}" if keys else "no chip"
            raise InputError(f"batch: {several}. Ask for chips of one platform at a time.")
        platform, reader = self._reader_of(keys[0])
        bands = self._bands_of(platform)
        scenes = self._scenes(platform, rows)
        pixels = self._pixels(platform, reader, scenes, bands, rows.num_rows)
        transforms, latlon = np.empty((rows.num_rows, 6)), np.empty((rows.num_rows, 4), np.float32)
        crs = np.empty(rows.num_rows, object)
        for scene in scenes:
            transforms[scene.chips] = transforms_of(scene)
            latlon[scene.chips] = latlon_of(scene, transforms[scene.chips])
            crs[scene.chips] = scene.finest.crs
        names = [band.name for band in bands]
        shown = [
            band.name
            for asset, number in platform.assets.view
            for band in platform.model_input.bands
            if (band.asset, band.number) == (asset, number)
        ]
        return ChipBatch(
            platform=platform.key,
            bands=tuple(names),
            pixels=pixels,
            item_id=tuple(rows["item_id"].to_pylist()),
            x=rows["chip_index_x"].to_numpy().astype(np.int64),
            y=rows["chip_index_y"].to_numpy().astype(np.int64),
            datetime=rows["datetime"].to_numpy().astype("datetime64[ms]"),
            gsd=platform.model_input.gsd,
            gsd_true=rows["gsd"].to_numpy().astype(np.float32),
            bounds=bounds_of(transforms),
            crs=tuple(crs),
            transforms=transforms,
            latlon=latlon,
            waves=np.array([band.wavelength for band in bands], np.float32),
            read_masks=partial(read_masks, platform, reader, scenes, rows.num_rows),
            rgb=tuple(names.index(name) for name in shown) if set(shown) <= set(names) else (),
        )

    def _scenes(self, platform: AnyPlatform, rows: pa.Table) -> list[Scene]:
        """The chips grouped by scene, in order of first occurrence."""
        names = rows["item_id"].combine_chunks().dictionary_encode()
        years = rows["year"].to_numpy().astype(np.int64)
        of_scene, scene_years = np.unique(
            np.stack([names.indices.to_numpy().astype(np.int64), years]), axis=1, return_inverse=True
        )
        place = scene_years.ravel()
        listed = names.dictionary.to_pylist()
        scenes = [(platform.key, int(year), listed[name]) for name, year in of_scene.T.tolist()]
        x, y = (rows[name].to_numpy().astype(np.int64) for name in ("chip_index_x", "chip_index_y"))
        found = []
        for number, files in enumerate(self._files_of(scenes)):
            chips = np.flatnonzero(place == number)
            finest = finest_of(platform, files)
            beyond = ((x[chips] + 1) * CHIP_SIZE > finest.width) | ((y[chips] + 1) * CHIP_SIZE > finest.height)
            if beyond.any():
                first = chips[beyond][0]
                raise InputError(
                    f"{files.item_id}-{x[first]}-{y[first]}: lies beyond the {finest.height} × {finest.width} pixels "
                    f"of {files.hrefs[platform.assets.grid]}. Materialise chip_index and cog_headers of its partition."
                )
            found.append(Scene(files, finest, chips, x[chips], y[chips]))
        return found

    def _pixels(
        self, platform: AnyPlatform, reader: BlockReader, scenes: Sequence[Scene], bands: Sequence[Band], count: int
    ) -> NDArray[Any]:
        layers = [layers_of(scene, bands) for scene in scenes]
        dtype = np.result_type(*{layer.header.dtype for of_scene in layers for layer in of_scene})
        pixels = np.empty((count, len(bands), CHIP_SIZE, CHIP_SIZE), dtype)
        requests, later = [], []
        for scene, of_scene in zip(scenes, layers, strict=True):
            change = self._change(scene.files)
            for layer in of_scene:
                windows = windows_of(scene, layer.factor)
                first, last = layer.places[0], layer.places[-1] + 1
                direct = layer.places == list(range(first, last)) and layer.header.dtype == dtype.name
                out = [pixels[chip, first:last] for chip in scene.chips.tolist()] if direct else None
                requests.append(
                    BlockRequest(layer.href, layer.header, windows, layer.numbers, out, layer.factor, change)
                )
                if not direct:
                    later.append((len(requests) - 1, scene, layer))
        results = reader.read(requests)
        for number, scene, layer in later:
            pixels[scene.chips[:, None], layer.places] = results[number]
        return pixels

    def _change(self, files: SceneFiles) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """How to convert the numbers of a scene's files; None: leave them unchanged."""
        if self.radiometry == "stored" or not files.offset:
            return None
        return partial(harmonise, offset=files.offset)


def _stored(store: Any, scene: tuple[str, int, str]) -> SceneFiles:
    return stored_scene_files(store, *scene)
