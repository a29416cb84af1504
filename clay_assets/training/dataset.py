"""Chips for PyTorch: a map-style and an iterable dataset, seeded, exact and resumable. Needs PyTorch.

Workers compute their batches from batch numbers (`order`), so only the address of the index and a few numbers per row
group are sent to them, never the index.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clay_assets.errors import IndexChangedError, InputError, SourceError
from clay_assets.platforms import platform_of
from clay_assets.training.balance import Balanced
from clay_assets.training.chip import ChipBatch
from clay_assets.training.chipper import Chipper, Radiometry
from clay_assets.training.counts import counted
from clay_assets.training.metadata import Radar
from clay_assets.training.order import Batch, Mixing, Order, Position, Shuffle, hash_of
from clay_assets.training.places import places_of
from clay_assets.training.pytorch import torch
from clay_assets.training.resuming import MADE_BY, NOBODY, WORKERS, Resumable
from clay_assets.training.selection import COLUMNS, Chips
from clay_assets.training.tensors import Samples, Tensors, Values

CACHE_BYTES = 256 << 20  # cache of decoded blocks, for a platform whose masks are read from its bands
TRIES = 3  # attempts at a batch whose chips can be read singly but not together

OnError = Literal["raise", "skip"]
Selection = Chips | Balanced
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Platform:
    """One platform's chips in a dataset.

    Attributes:
        key: platform key.
        chips: the selection to read from.
        first: index of its first chip in the dataset.
        count: number of chips.
    """

    key: str
    chips: Selection
    first: int
    count: int


class ChipDataset(torch.utils.data.Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Chips as tensors, by their indices in the selection (map-style).

    `dataset[i]` is one chip; a DataLoader reads whole batches at once. Shuffle with a `ChipSampler`, which keeps each
    batch to one platform and can be resumed, or, for one platform, with any PyTorch sampler.

    Args:
        chips: a selection, a balanced one, or a list of either for different platforms. A balanced selection must be of
            one platform.
        bands: as for `Chipper`.
        pixels: "normalised" or "raw"; see `Tensors`.
        radar: "db", "clay" or "linear"; see `Tensors`.
        metadata: a `metadata.yaml`; None: Clay's; see `Tensors`.
        masks: also return `valid` and `cloud`.
        radiometry: as for `Chipper`.
        on_error: for a chip that cannot be read, "raise" its error or "skip" it. The batch is then smaller, and counts
            the skipped chips.
        threads: threads that decode blocks, in each worker.
        in_flight: as for `Chipper`.
        cache_bytes: size of each worker's cache of decoded blocks, over all platforms. None: no cache, as shuffled
            batches hardly share blocks and allocating memory costs half as much as decoding; only platforms whose masks
            are read from their bands get the cache that this needs.
        checksums: as for `Chipper`.

    Raises:
        InputError: the selection is empty, or the options do not fit a platform.

    Examples:
        >>> from clay_assets import ChipDataset, open_chips
        >>> chips = open_chips("demo/storage", "sentinel-2-l2a")
        >>> dataset = ChipDataset(chips, bands=["red", "green", "blue"], pixels="raw")
        >>> len(dataset) == len(chips)
        True
        >>> dataset[0]["pixels"].shape
        torch.Size([3, 256, 256])
    """

    def __init__(
        self,
        chips: Selection | Sequence[Selection],
        *,
        bands: Sequence[str] | None = None,
        pixels: Values = "normalised",
        radar: Radar = "db",
        metadata: str | None = None,
        masks: bool = True,
        radiometry: Radiometry = "harmonised",
        on_error: OnError = "raise",
        threads: int = 1,
        in_flight: int = 16,
        cache_bytes: int | None = None,
        checksums: bool = True,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise InputError(f'on_error {on_error!r}: not known. Say "raise" or "skip".')
        self.tensors = Tensors(pixels, radar, metadata, masks)
        self.on_error: OnError = on_error
        self._bands = [bands] if isinstance(bands, str) else bands
        selections = [chips] if isinstance(chips, Selection) else list(chips)
        self.platforms: dict[str, _Platform] = {}
        for selection in selections:
            for key, part in _by_platform(selection):
                self._add(key, part)
        self._count = sum(platform.count for platform in self.platforms.values())
        if not self._count:
            raise InputError("no chip is selected. Select another platform, year, split or place.")
        for key in self.platforms:
            self.tensors.check(key, bands)
        self.hash = hash_of([selection.hash for selection in selections])
        options: dict[str, Any] = {"bands": bands, "radiometry": radiometry, "threads": threads, "in_flight": in_flight}
        self._chippers = {}
        for key, platform in self.platforms.items():
            kept = _kept(key, masks) if cache_bytes is None else cache_bytes // len(self.platforms)
            self._chippers[key] = Chipper(platform.chips, **options, cache_bytes=kept, checksums=checksums)
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        groups = {key: _chips_of(platform).groups for key, platform in self.platforms.items()}
        return {**self.__dict__, "_groups": groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        groups = state.pop("_groups")
        self.__dict__.update(state)
        for key, platform in self.platforms.items():
            _chips_of(platform).know(groups[key])
        self._process = os.getpid()

    def _add(self, key: str, chips: Selection) -> None:
        if key in self.platforms:
            raise InputError(f"{key}: is in two selections. Select its chips once.")
        first = sum(platform.count for platform in self.platforms.values())
        self.platforms[key] = _Platform(key, chips, first, len(chips))

    @property
    def counts(self) -> dict[str, int]:
        """Platform key → chips."""
        return {key: platform.count for key, platform in self.platforms.items()}

    @property
    def counters(self) -> dict[str, Any]:
        """What has been read so far in this process, by platform; see `Chipper.counters`."""
        return {key: chipper.counters for key, chipper in self._chippers.items()}

    def __len__(self) -> int:
        """Number of chips."""
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One chip: the tensors of `Tensors.of` without the first dimension, and its `index` in the dataset.

        Raises:
            IndexError: the index is out of range.
            InputError, SourceError: as for `Chipper.batch`, whatever `on_error` says.
        """
        return self._samples([int(index)], "raise")[0]  # type: ignore[no-any-return]

    def __getitems__(self, indices: Sequence[int] | Batch) -> Samples:
        """Read some chips of one platform, or a batch of a `ChipSampler`, together."""
        return self._of(indices) if isinstance(indices, Batch) else self._samples(indices, self.on_error)

    def order(
        self,
        batch_size: int = 128,
        seed: int = 0,
        platforms: Mixing = "proportional",
        shuffle: Shuffle = "scenes",
        scenes: int = 16,
        drop_last: bool = False,
    ) -> Order:
        """The order of the dataset's chips; see `Order`."""
        return Order(self.hash, self.counts, seed, batch_size, platforms, shuffle, scenes, drop_last)

    def read(self, order: Order, batch: Batch) -> dict[str, Any]:
        """The tensors of a batch, with its `state` and the number of `skipped` chips."""
        platform = self._here().platforms[order.platform_of(batch)]
        places = order.places(batch)
        if order.shuffle == "scenes" and isinstance(platform.chips, Chips):
            places = platform.chips.in_scenes(places)
        found = self._batch(platform, places, self.on_error)
        found["state"] = order.state(Position(batch.epoch, batch.after))
        return found

    def _of(self, drawn: Batch) -> Samples:
        assert isinstance(drawn, _Drawn)
        return Samples(self.read(drawn.order, drawn))

    def _samples(self, indices: ArrayLike | Sequence[int], on_error: OnError) -> Samples:
        places = places_of(indices, len(self))
        platforms = list(self._here().platforms.values())
        ends = np.cumsum([platform.count for platform in platforms])
        of_platform = np.unique(np.searchsorted(ends, places, side="right")).tolist()
        if len(of_platform) != 1:
            keys = ", ".join(platforms[number].key for number in of_platform)
            raise InputError(
                f"a batch of {keys or 'no chip'}: chips of one platform belong in a batch. Use a ChipSampler as "
                "batch_sampler, or select one platform."
            )
        platform = platforms[of_platform[0]]
        return Samples(self._batch(platform, places - platform.first, on_error))

    # --- reading ----------------------------------------------------------------------------------

    def _here(self) -> ChipDataset:
        """The dataset's readers in this process: connections and threads do not survive a fork."""
        if self._process != os.getpid():
            self.__setstate__(pickle.loads(pickle.dumps(self)).__getstate__())
        return self

    def _batch(self, platform: _Platform, places: NDArray[np.int64], on_error: OnError) -> dict[str, Any]:
        chips, kept = self._read(self._chippers[platform.key], places, on_error)
        found = self.tensors.none_of(platform.key, self._bands) if chips is None else self.tensors.of(chips)
        found["index"] = torch.from_numpy(platform.first + places[kept])
        found["skipped"] = len(places) - len(kept)
        return found

    def _read(
        self, chipper: Chipper, places: NDArray[np.int64], on_error: OnError
    ) -> tuple[ChipBatch | None, NDArray[np.int64]]:
        """The chips that can be read, and their positions among `places`."""
        kept = np.arange(len(places))
        for left in reversed(range(TRIES)):
            try:
                return (chipper.batch(places[kept], masks=self.tensors.masks) if len(kept) else None), kept
            except IndexChangedError:
                raise
            except (InputError, SourceError):
                if on_error == "raise" or not left:
                    raise
            kept = kept[self._readable(chipper, places[kept])]
        raise AssertionError

    def _readable(self, chipper: Chipper, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which chips can be read: tried scene by scene, then chip by chip in scenes that fail."""
        rows = chipper.chips.rows(places, COLUMNS)
        scenes = np.array(rows["item_id"].to_pylist(), object)
        readable = np.ones(len(places), np.bool_)
        for scene in dict.fromkeys(scenes):
            here = np.flatnonzero(scenes == scene)
            if self._fails(chipper, places[here]) is None:
                continue
            errors = {number: self._fails(chipper, places[[number]]) for number in here.tolist()}
            failed = [number for number, error in errors.items() if error is not None]
            readable[failed] = False
            if failed:
                logger.warning("%s: %d of %d chips are left out: %s", scene, len(failed), len(here), errors[failed[0]])
        return readable

    def _fails(self, chipper: Chipper, places: NDArray[np.int64]) -> Exception | None:
        try:
            chipper.batch(places, masks=self.tensors.masks)
        except IndexChangedError:
            raise
        except (InputError, SourceError) as error:
            return error
        return None

    def __repr__(self) -> str:
        chips = ", ".join(f"{count:,} of {key}" for key, count in self.counts.items())
        return f"ChipDataset({chips})"


def _kept(key: str, masks: bool) -> int:
    platform = platform_of(key)
    shared = platform.quality.reads == "band" and not {*platform.quality.assets}.isdisjoint(platform.assets.bands)
    return CACHE_BYTES if masks and shared else 0


def _chips_of(platform: _Platform) -> Chips:
    """The selection of the merged index that the chips come from."""
    return platform.chips.chips if isinstance(platform.chips, Balanced) else platform.chips


def _by_platform(chips: Any) -> Iterator[tuple[str, Selection]]:
    """A selection split by platform."""
    if not isinstance(chips, Selection):
        raise InputError(f"{chips!r}: not a selection. Pass what `open_chips` or `balanced` gave.")
    keys = list(dict.fromkeys(part.platform for part in chips.parts))
    if isinstance(chips, Chips):
        counted(chips)
        for key in keys:
            yield key, chips.of_platform(key)
    elif len(keys) != 1:
        raise InputError(
            f"a balanced selection of {', '.join(keys) or 'no platform'}: its batches would mix them. Pass a balanced "
            "selection of each platform, as a list."
        )
    else:
        yield keys[0], chips


@dataclass(frozen=True)
class _Drawn(Batch):
    """A batch on its way to a worker, with the order that it belongs to."""

    order: Order


class ChipSampler(Resumable):
    """The batches of a `ChipDataset`, to be passed to a `ChipLoader` as `batch_sampler`.

    Args:
        dataset: the dataset to read.
        batch_size, seed, platforms, shuffle, scenes, drop_last: see `Order`.
        rank, ranks: see `Resumable`.

    Examples:
        >>> from clay_assets.training import ChipDataset, ChipLoader, ChipSampler, open_chips
        >>> dataset = ChipDataset(open_chips("demo/storage", "sentinel-2-l2a"))
        >>> sampler = ChipSampler(dataset, batch_size=4, seed=1)
        >>> batch = next(iter(ChipLoader(dataset, batch_sampler=sampler)))
        >>> batch["pixels"].shape
        torch.Size([4, 10, 256, 256])
    """

    def __init__(
        self,
        dataset: ChipDataset,
        batch_size: int = 128,
        seed: int = 0,
        *,
        platforms: Mixing = "proportional",
        shuffle: Shuffle = "scenes",
        scenes: int = 16,
        drop_last: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        super().__init__(dataset.order(batch_size, seed, platforms, shuffle, scenes, drop_last), rank, ranks)

    def __iter__(self) -> Iterator[Batch]:
        """The batches for a `ChipDataset` to read."""
        self.begin()
        if int(self._shared[MADE_BY]) == NOBODY:
            self._shared[MADE_BY] = WORKERS
        for batch in self.batches():
            yield _Drawn(**vars(batch), order=self.order)


class ChipStream(Resumable, torch.utils.data.IterableDataset[dict[str, Any]]):  # type: ignore[misc]
    """Chips as batches of tensors, epoch after epoch (iterable), each chip once in an epoch.

    Iterate over the stream, or over a `ChipLoader` of it with workers. An iteration covers the rest of the epoch.

    Args:
        chips: as for `ChipDataset`.
        batch_size, seed, platforms, shuffle, scenes, drop_last: see `Order`.
        rank, ranks: see `Resumable`.
        options: as for `ChipDataset`.

    Examples:
        >>> from clay_assets import ChipStream, open_chips
        >>> stream = ChipStream(open_chips("demo/storage", "sentinel-2-l2a"), batch_size=4, seed=1)
        >>> for batch in stream:
        ...     state = batch["state"]  # for `stream.load_state_dict`
        ...     break
        >>> sorted(batch)[:4], batch["pixels"].shape
        (['cloud', 'gsd', 'index', 'latlon'], torch.Size([4, 10, 256, 256]))
    """

    def __init__(
        self,
        chips: Selection | Sequence[Selection],
        batch_size: int = 128,
        seed: int = 0,
        *,
        platforms: Mixing = "proportional",
        shuffle: Shuffle = "scenes",
        scenes: int = 16,
        drop_last: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
        **options: Any,
    ) -> None:
        self.dataset = ChipDataset(chips, **options)
        super().__init__(self.dataset.order(batch_size, seed, platforms, shuffle, scenes, drop_last), rank, ranks)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches: the tensors of `Tensors.of`, `index`, `skipped`, and the `state` after the batch is received.

        A batch without a readable chip is left out, unless there are several ranks; see `Resumable.with_chips`.
        """
        if torch.utils.data.get_worker_info() is None:
            self.begin()
            made = (self.dataset.read(self.order, batch) for batch in self.batches())
            yield from self.with_chips(made)
            self.ended()
            return
        if int(self._shared[MADE_BY]) == NOBODY:
            self._shared[MADE_BY] = WORKERS
        for batch in self.batches():
            found = self.dataset.read(self.order, batch)
            self._received = self.order.position(found["state"])
            yield found
