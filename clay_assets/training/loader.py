"""A DataLoader that counts the batches it has handed over. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clay_assets.errors import InputError
from clay_assets.training.dataset import ChipDataset, ChipSampler, ChipStream
from clay_assets.training.pytorch import torch
from clay_assets.training.resuming import LOADER, MADE_BY, Resumable
from clay_assets.training.tensors import collate


class ChipLoader(torch.utils.data.DataLoader[Any]):  # type: ignore[misc]
    """A DataLoader that counts the batches it has handed over, and can be resumed.

    Args:
        dataset: a `ChipStream`, or a `ChipDataset` with a `ChipSampler` as `batch_sampler`.
        options: options of `torch.utils.data.DataLoader`, except `batch_size`, `shuffle` and `sampler`.

    Raises:
        InputError: a dataset without a sampler, or options that belong to the stream or sampler.

    Examples:
        >>> from clay_assets.training import ChipLoader, ChipStream, open_chips
        >>> stream = ChipStream(open_chips("demo/storage", "sentinel-2-l2a"), batch_size=4, seed=1)
        >>> loader = ChipLoader(stream, num_workers=0)  # processes that read ahead
        >>> sum(len(batch["index"]) for batch in loader) == len(stream.dataset)
        True
    """

    def __init__(
        self, dataset: ChipDataset | ChipStream, *, batch_sampler: ChipSampler | None = None, **options: Any
    ) -> None:
        foreign = sorted({"batch_size", "shuffle", "sampler", "drop_last"} & set(options))
        if foreign:
            raise InputError(f"ChipLoader: {', '.join(foreign)} is for the stream or the sampler. Pass it there.")
        resumable = dataset if isinstance(dataset, ChipStream) else batch_sampler
        if not isinstance(resumable, Resumable) or (batch_sampler is not None and isinstance(dataset, ChipStream)):
            raise InputError(
                "ChipLoader: takes a ChipStream, or a ChipDataset with a ChipSampler as batch_sampler. Pass these."
            )
        self.resumable: Resumable = resumable
        stream = isinstance(dataset, ChipStream)
        given: dict[str, Any] = {"batch_size": None} if stream else {"batch_sampler": batch_sampler}
        collating: Callable[[Any], Any] = _as_it_is if stream else collate
        super().__init__(dataset, **given, **{"collate_fn": collating, **options})

    def __iter__(self) -> Iterator[Any]:
        """The batches left in the epoch."""
        by_stream = self.num_workers == 0 and isinstance(self.dataset, ChipStream)
        self.resumable.begin()
        self.resumable._shared[MADE_BY] = LOADER
        made = super().__iter__()
        yield from made if by_stream else self.resumable.with_chips(made)  # a stream counts itself
        self.resumable.ended()

    def __len__(self) -> int:
        """Number of batches left in the epoch for this rank."""
        return len(self.resumable)

    @property
    def skipped(self) -> int:
        """Number of chips that could not be read in batches handed over."""
        return self.resumable.skipped

    def state_dict(self) -> dict[str, Any]:
        """See `Resumable.state_dict`; prefetched batches do not count."""
        return self.resumable.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Resumable.load_state_dict`; takes effect with the next iteration."""
        self.resumable.load_state_dict(state)

    def set_epoch(self, epoch: int, *, anew: bool = False) -> None:
        """See `Resumable.set_epoch`; takes effect with the next iteration."""
        self.resumable.set_epoch(epoch, anew=anew)


def _as_it_is(batch: Any) -> Any:
    return batch
