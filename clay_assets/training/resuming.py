"""The position of an iteration over batches, and how to resume it. Needs PyTorch.

The position is counted where batches are received, so prefetched batches do not count. Workers get the start position
through shared memory, which also reaches workers that persist between epochs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clay_assets.errors import InputError
from clay_assets.training.order import Batch, Order, Position
from clay_assets.training.pytorch import torch

# Indices in the memory shared with workers.
EPOCH, SAMPLES, RANK, RANKS, MADE_BY = range(5)
NOBODY, WORKERS, LOADER = range(3)  # who made the batches: none yet, workers of a plain DataLoader, or of a ChipLoader


@dataclass
class Share:
    """This process's rank and the number of ranks."""

    rank: int
    ranks: int


class Resumable:
    """An iteration over the batches of one rank, epoch after epoch, that can be resumed at any sample.

    An iteration starts after the last batch received: within the epoch if it was interrupted, else with the next epoch.

    Args:
        order: the order of the batches.
        rank, ranks: rank of this process, and number of ranks; None: from `torch.distributed` when an iteration starts,
            else 0 of 1.
    """

    def __init__(self, order: Order, rank: int | None, ranks: int | None) -> None:
        if (rank is None) != (ranks is None) or (ranks is not None and not 0 <= (rank or 0) < ranks):
            raise InputError(f"rank {rank} of {ranks}: invalid. Pass both, with rank from 0 and below ranks.")
        self.order = order
        self.skipped = 0  # unreadable chips in batches received
        self._given = None if rank is None or ranks is None else Share(rank, ranks)
        self._received = Position()
        self._shared = torch.zeros(5, dtype=torch.int64).share_memory_()
        self._tell(Position())

    # --- for those who train ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position of the iteration: at most 200 bytes as JSON, valid for any number of ranks and workers.

        All ranks return the same state at the same step; what other ranks receive in this step counts as received.

        Raises:
            InputError: batches were made by workers of a loader that does not report what it handed over.
        """
        if torch.utils.data.get_worker_info() is None and int(self._shared[MADE_BY]) == WORKERS:
            raise InputError(
                "state_dict: workers made the batches, and only their receiver knows how many it has. Use ChipLoader "
                "in place of DataLoader, or keep the `state` of the last batch."
            )
        return self.order.state(self._received)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume an iteration from a state.

        Raises:
            InputError: not a valid state, or one of other chips, another seed, order or version.
        """
        self._received = self.order.position(state)
        if torch.utils.data.get_worker_info() is None:
            self._tell(self._received)
        else:
            self._own = self._received  # in a worker, set by its own loader

    def set_epoch(self, epoch: int, *, anew: bool = False) -> None:
        """Set the next epoch; an epoch in progress continues, or restarts if `anew`."""
        if epoch < 0:
            raise InputError(f"epoch {epoch}: invalid. Count from 0.")
        if epoch == self.epoch and not anew:
            return
        self._received = Position(int(epoch))
        self._tell(self._received)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._next.epoch

    def __len__(self) -> int:
        """Number of batches that this rank still receives in the epoch."""
        share = self._share()
        return len(self.order.numbers(self._next, share.rank, share.ranks))

    # --- for samplers, streams and loaders -------------------------------------------------------

    @property
    def _next(self) -> Position:
        """The position where the next iteration starts."""
        ended = self._received.samples >= self.order.samples
        return Position(self._received.epoch + 1) if ended else self._received

    def _tell(self, begin: Position) -> None:
        self._shared[EPOCH], self._shared[SAMPLES] = begin.epoch, begin.samples
        self._shared[RANKS] = 0

    def _share(self) -> Share:
        if self._given is not None:
            return self._given
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return Share(torch.distributed.get_rank(), torch.distributed.get_world_size())
        told = self._shared.tolist()
        return Share(told[RANK], told[RANKS]) if told[RANKS] else Share(0, 1)

    def begin(self) -> None:
        """Start an iteration after the last batch received, and notify the workers.

        Raises:
            InputError: there are fewer batches than ranks, and incomplete batches are left out.
        """
        if self._received != self._next:
            self._received = self._next
        share = self._share()
        if self._received.samples == 0 and self.order.stop(self._received, share.ranks) == 0:
            raise InputError(
                f"{sum(self.order.counts.values()):,} chips: make no full batches of {self.order.batch_size} for "
                f"{share.ranks} ranks. Take fewer ranks, smaller batches or drop_last=False."
            )
        self._tell(self._received)
        self._shared[RANK], self._shared[RANKS] = share.rank, share.ranks

    def handed(self, batch: Mapping[str, Any]) -> None:
        """Count a batch as received."""
        self._received = self.order.position(batch["state"])
        self.skipped += batch["skipped"]

    def with_chips(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Count batches as received, and leave out those without a readable chip.

        With several ranks, these are handed over empty, so that all ranks make the same number of steps.

        Raises:
            InputError: no chip of an entire epoch could be read.
        """
        alone, whole = self._share().ranks == 1, self._received.samples == 0
        read = lost = 0
        for batch in batches:
            self.handed(batch)
            read += len(batch["platform"])
            lost += batch["skipped"]
            if len(batch["platform"]) or not alone:
                yield batch
        if alone and whole and lost and not read:  # a loop over epochs would never end
            raise InputError(f"none of {lost:,} chips could be read. See the log for errors, or ask on_error='raise'.")

    def ended(self) -> None:
        """Note that an entire epoch was received."""
        self._received = Position(self._received.epoch, self.order.samples)

    def batches(self) -> Iterator[Batch]:
        """The batches of the current iteration for this rank and worker."""
        share, worker = self._share(), torch.utils.data.get_worker_info()
        place, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        told = self._shared.tolist()
        begin = getattr(self, "_own", None) or Position(told[EPOCH], told[SAMPLES])
        return self.order.shared(begin, share.rank, share.ranks, place, workers)

    def __getstate__(self) -> dict[str, Any]:
        share = self._share()  # a spawned process does not know its rank
        self._shared[RANK], self._shared[RANKS] = share.rank, share.ranks
        return self.__dict__
