"""Where an iteration over batches is, and how it is taken up again. Needs PyTorch.

The place is counted where batches are received: what workers made ahead does not count. Workers learn where to begin
through shared memory, so also those that stay alive from one epoch to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clay_assets.errors import InputError
from clay_assets.training.order import Batch, Order, Position
from clay_assets.training.pytorch import torch

# Places in what is shared with workers.
EPOCH, SAMPLES, RANK, RANKS, MADE_BY = range(5)
NOBODY, WORKERS, LOADER = range(3)  # that made batches and tells nobody, or tells a ChipLoader


@dataclass
class Share:
    """Which rank this is, of how many."""

    rank: int
    ranks: int


class Resumable:
    """An iteration over the batches of one rank, epoch after epoch, that can be taken up at any sample.

    An iteration begins after what was received: a new one where the last was broken off, and in the next epoch where
    an epoch was received whole.

    Args:
        order: of the batches.
        rank, ranks: of this process; None: as `torch.distributed` says when an iteration begins, else 0 of 1.
    """

    def __init__(self, order: Order, rank: int | None, ranks: int | None) -> None:
        if (rank is None) != (ranks is None) or (ranks is not None and not 0 <= (rank or 0) < ranks):
            raise InputError(f"rank {rank} of {ranks}: cannot be. Pass both, with rank from 0 and below ranks.")
        self.order = order
        self.skipped = 0  # chips that could not be read, of batches that were received
        self._given = None if rank is None or ranks is None else Share(rank, ranks)
        self._received = Position()
        self._shared = torch.zeros(5, dtype=torch.int64).share_memory_()
        self._tell(Position())

    # --- for those who train ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is: at most 200 bytes as JSON, valid for any number of ranks and workers.

        All ranks give the same at the same step; what other ranks receive in this step counts as received.

        Raises:
            InputError: batches were made by workers of a loader that does not tell what it handed over.
        """
        if torch.utils.data.get_worker_info() is None and int(self._shared[MADE_BY]) == WORKERS:
            raise InputError(
                "state_dict: workers made the batches, and only their receiver knows how many it has. Use ChipLoader "
                "in place of DataLoader, or keep the `state` of the last batch."
            )
        return self.order.state(self._received)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up an iteration where a state tells.

        Raises:
            InputError: it is of other chips, of another seed, order or version, or not a state.
        """
        self._received = self.order.position(state)
        if torch.utils.data.get_worker_info() is None:
            self._tell(self._received)
        else:
            self._own = self._received  # a worker that is told by its own loader

    def set_epoch(self, epoch: int, *, anew: bool = False) -> None:
        """Say which epoch comes next, as loops do before each; one that was begun goes on, or begins anew if told."""
        if epoch < 0:
            raise InputError(f"epoch {epoch}: cannot be. Count from 0.")
        if epoch == self.epoch and not anew:
            return
        self._received = Position(int(epoch))
        self._tell(self._received)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of."""
        return self._next.epoch

    def __len__(self) -> int:
        """Batches that this rank still receives in the epoch."""
        share = self._share()
        return len(self.order.numbers(self._next, share.rank, share.ranks))

    # --- for samplers, streams and loaders -------------------------------------------------------

    @property
    def _next(self) -> Position:
        """Where the next iteration begins."""
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
        """Begin an iteration after what was received, and tell workers.

        Raises:
            InputError: there is not one batch for each rank, and batches that are not full are left out.
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
        """Count batches as received, and leave out those of which no chip could be read.

        With several ranks these are handed over without chips, so that all ranks make the same number of steps.

        Raises:
            InputError: no chip of a whole epoch could be read.
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
        """An epoch was received whole."""
        self._received = Position(self._received.epoch, self.order.samples)

    def batches(self) -> Iterator[Batch]:
        """Those of this process, in this rank and worker, of the iteration that has begun."""
        share, worker = self._share(), torch.utils.data.get_worker_info()
        place, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        told = self._shared.tolist()
        begin = getattr(self, "_own", None) or Position(told[EPOCH], told[SAMPLES])
        return self.order.shared(begin, share.rank, share.ranks, place, workers)

    def __getstate__(self) -> dict[str, Any]:
        share = self._share()  # a process that is spawned knows nothing of ranks
        self._shared[RANK], self._shared[RANKS] = share.rank, share.ranks
        return self.__dict__
