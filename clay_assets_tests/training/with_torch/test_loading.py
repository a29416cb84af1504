"""Datasets, sampler, stream and loader: every chip once, with any processes and interruptions."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from clay_assets.chips.manifest import manifest_of, read_manifest
from clay_assets.errors import IndexChangedError, InputError
from clay_assets.recipes import load_recipe
from clay_assets.storage import layout
from clay_assets.training import balanced, open_chips
from clay_assets.training.chipper import Chipper
from clay_assets.training.dataset import ChipDataset, ChipSampler, ChipStream
from clay_assets.training.loader import ChipLoader
from clay_assets.training.selection import SPLITS, RowGroups
from clay_assets.training.tensors import collate
from clay_assets_tests.chips.factories import L2, S2
from clay_assets_tests.training.conftest import PLAIN
from clay_assets_tests.training.made_scenes import Made, landsat, made_storage, sentinel_2

LOADERS = ("stream", "sampler")


def loader_of(made: Made, kind: str, order: dict[str, Any] | None = None, **options: Any) -> ChipLoader:
    """A loader of all 24 chips in batches of 3."""
    chips, given = open_chips(made.storage), {"batch_size": 3, "seed": 4, **(order or {})}
    if kind == "stream":
        return ChipLoader(ChipStream(chips, masks=False, **given), **options)
    dataset = ChipDataset(chips, masks=False)
    return ChipLoader(dataset, batch_sampler=ChipSampler(dataset, **given), **options)


def received(batches: Iterator[dict[str, Any]], count: int | None = None) -> list[int]:
    """Indices of the chips of some batches, in the order received."""
    found: list[int] = []
    for number, batch in enumerate(batches, 1):
        found += batch["index"].tolist()
        if number == count:
            break
    return found


def test_a_chip_and_a_batch(made: Made) -> None:
    chips = open_chips(made.storage)
    dataset, chipper = ChipDataset(chips, pixels="raw"), Chipper(chips)
    assert len(dataset) == 24
    assert dataset.counts == {L2: 6, S2: 18}
    for place in (0, 5, 6, 23, -1):
        chip, sample = chipper[place], dataset[place]
        np.testing.assert_array_equal(sample["pixels"], chip.pixels.astype(np.float32))
        np.testing.assert_array_equal(sample["valid"], chip.valid)
        np.testing.assert_array_equal(sample["time"], chip.time)
        assert (sample["platform"], int(sample["index"])) == (chip.platform, place % 24)
    batch = collate(dataset.__getitems__([7, 9, 8]))
    assert batch["pixels"].shape == (3, 10, 256, 256)
    assert batch["waves"].shape == (10,)
    assert batch["gsd"].shape == ()
    assert batch["valid"].shape == batch["cloud"].shape == (3, 256, 256)
    single = collate([dataset[7], dataset[9], dataset[8]])
    assert set(single) == set(batch) - {"skipped"}
    for name, value in single.items():
        assert torch.equal(value, batch[name]) if torch.is_tensor(value) else value == batch[name]
    with pytest.raises(IndexError, match="chip 24: the selection has 24 chips"):
        dataset[24]
    with pytest.raises(InputError, match=f"a batch of {L2}, {S2}: chips of one platform belong in a batch"):
        dataset.__getitems__([5, 6])
    with pytest.raises(InputError, match=r"chips of one platform belong in a batch\. Use a ChipSampler"):
        collate([dataset[5], dataset[6]])


def test_samplers_of_pytorch_read_one_platform(made: Made) -> None:
    dataset = ChipDataset(open_chips(made.storage, S2), masks=False)
    found = Counter[int]()
    for rank in range(2):
        sampler = DistributedSampler(dataset, 2, rank, seed=3)
        loader = DataLoader(dataset, 4, sampler=sampler, num_workers=rank, collate_fn=collate)
        found.update(received(iter(loader)))
    assert found == Counter(range(18))


@pytest.mark.parametrize("kind", LOADERS)
def test_every_chip_comes_once_with_any_workers(made: Made, kind: str) -> None:
    whole = received(iter(loader_of(made, kind)))
    assert sorted(whole) == list(range(24))
    assert whole != sorted(whole)
    forked = loader_of(made, kind, num_workers=2, multiprocessing_context="fork")
    assert received(iter(forked)) == whole
    # Interrupted and resumed with other workers.
    spawned = {"multiprocessing_context": "spawn" if kind == "stream" else "fork", "num_workers": 1}
    came, state = [], None
    for count, options in ((2, {"num_workers": 2}), (1, {}), (None, spawned)):
        loader = loader_of(made, kind, **options)
        if state is not None:
            loader.load_state_dict(json.loads(state))
            assert len(loader) == (24 - len(came)) // 3
        came += received(iter(loader), count)
        state = json.dumps(loader.state_dict())
        assert len(state.encode()) <= 200
        assert json.loads(state)["position"] == len(came)
    assert came == whole
    # A completed epoch is followed by the next, in another order.
    later = loader_of(made, kind)
    later.load_state_dict(json.loads(state or ""))
    again = received(iter(later))
    assert sorted(again) == list(range(24))
    assert again != whole
    later.set_epoch(0)
    assert received(iter(later), 2) == whole[:6]
    later.set_epoch(0)  # as loops do before each epoch; the resumed one continues
    assert received(iter(later), 1) == whole[6:9]
    later.set_epoch(0, anew=True)
    assert received(iter(later)) == whole


@pytest.mark.parametrize("kind", LOADERS)
def test_workers_that_stay_alive_begin_where_they_are_told(made: Made, kind: str) -> None:
    plain = loader_of(made, kind)
    expected = [received(iter(plain)) for _ in range(2)]
    kept = loader_of(made, kind, num_workers=2, persistent_workers=True)
    assert [received(iter(kept)) for _ in range(2)] == expected
    kept.set_epoch(0)
    assert received(iter(kept)) == expected[0]


@pytest.mark.parametrize("kind", LOADERS)
def test_ranks_share_an_epoch(made: Made, kind: str) -> None:
    came, states = [], []
    for rank in range(3):
        loader = loader_of(made, kind, {"rank": rank, "ranks": 3}, num_workers=rank)
        came += received(iter(loader), 1)
        states.append(loader.state_dict())
    assert states[0] == states[1] == states[2]
    for rank in range(2):
        loader = loader_of(made, kind, {"rank": rank, "ranks": 2})
        loader.load_state_dict(states[0])
        came += received(iter(loader))
        assert loader.state_dict()["position"] == 24
    assert sorted(came) == list(range(24))


def test_what_was_only_made_ahead_does_not_count(made: Made) -> None:
    loader = loader_of(made, "stream", num_workers=2, prefetch_factor=4)
    assert loader.state_dict()["position"] == 0
    batches = iter(loader)
    for count in (1, 2):
        batch = next(batches)
        assert loader.state_dict() == batch["state"]
        assert batch["state"]["position"] == 3 * count
    assert loader.resumable.state_dict() == batch["state"]


def test_a_loader_that_tells_nothing(made: Made) -> None:
    chips = open_chips(made.storage)
    stream = ChipStream(chips, 3, masks=False)
    batches = iter(DataLoader(stream, batch_size=None, num_workers=1))
    first = next(batches)
    with pytest.raises(InputError, match=r"only their receiver knows how many it has\. Use ChipLoader"):
        stream.state_dict()
    rest = ChipStream(chips, 3, masks=False)
    rest.load_state_dict(first["state"])
    assert sorted([*first["index"].tolist(), *received(iter(rest))]) == list(range(24))


def test_a_worker_is_killed(made: Made) -> None:
    loader = loader_of(made, "stream", num_workers=2, prefetch_factor=1)
    batches = iter(loader)
    came = next(batches)["index"].tolist()
    for worker in batches.gi_frame.f_locals["made"]._workers:  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* (killed|exited unexpectedly)"):
        came.extend(place for batch in batches for place in batch["index"].tolist())  # prefetched ones may come
    assert loader.state_dict()["position"] == len(came)
    assert sorted(came + received(iter(loader))) == list(range(24))


def test_equal_platforms(made: Made) -> None:
    chips = open_chips(made.storage)
    stream = ChipStream(chips, 6, platforms="equal", masks=False)
    platforms, found = Counter[str](), Counter[int]()
    for batch in stream:
        assert len(set(batch["platform"])) == 1
        platforms.update(batch["platform"])
        found.update(batch["index"].tolist())
    assert platforms == {L2: 18, S2: 18}
    assert found == Counter({place: 3 if place < 6 else 1 for place in range(24)})
    assert stream.order.samples == 36


def two_scenes(folder: Path) -> Made:
    return made_storage(folder, {"plain": sentinel_2(PLAIN, 2020), "gone": sentinel_2("S2A_gone", 2020, column=1)})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_scene_that_disappears(tmp_path: Path, workers: int) -> None:
    made = two_scenes(tmp_path)
    chips = open_chips(made.storage)
    stream = ChipStream(chips, 2, masks=False, on_error="skip", cache_bytes=0)
    options: dict[str, Any] = {"prefetch_factor": 1} if workers else {}
    loader = ChipLoader(stream, num_workers=workers, **options)
    batches = iter(loader)
    came = next(batches)["index"].tolist()
    shutil.rmtree(tmp_path / "gone")
    sizes = []
    for batch in batches:
        assert len(batch["index"]) == len(batch["pixels"]) == 2 - batch["skipped"] > 0
        came += batch["index"].tolist()
        sizes.append(len(batch["index"]))
    names = chips.table(["item_id"])["item_id"].to_pylist()
    assert len(came) == len(set(came))
    assert {place for place, name in enumerate(names) if name == PLAIN} <= set(came)
    assert loader.skipped == 12 - len(came) > 0
    assert loader.state_dict()["position"] == 12
    # Or its error is raised.
    with pytest.raises((InputError, FileNotFoundError), match="gone"):
        received(iter(ChipStream(chips, 2, masks=False)))
    with pytest.raises(InputError):
        ChipDataset(chips, masks=False, on_error="skip")[names.index("S2A_gone")]


def test_ranks_make_the_same_steps_where_no_chip_of_a_batch_can_be_read(tmp_path: Path) -> None:
    made = two_scenes(tmp_path)
    chips = open_chips(made.storage)
    names = chips.table(["item_id"])["item_id"].to_pylist()
    shutil.rmtree(tmp_path / "gone")
    steps, came, lost = [], [], 0
    for rank in range(2):
        options: dict[str, Any] = {"rank": rank, "ranks": 2, "on_error": "skip", "cache_bytes": 0, "shuffle": "chips"}
        loader = ChipLoader(ChipStream(chips, 1, **options), num_workers=rank)
        batches = list(loader)
        steps.append(len(batches))
        lost += loader.skipped
        for batch in batches:
            assert batch["pixels"].shape == (len(batch["platform"]), 10, 256, 256)
            assert batch["valid"].shape == (len(batch["platform"]), 256, 256)
            assert len(batch["waves"]) == 10
            came += batch["index"].tolist()
    assert (steps, lost) == ([6, 6], 6)
    assert sorted(came) == [place for place, name in enumerate(names) if name == PLAIN]
    # With one rank, such a batch is left out; and a loop over epochs without readable chips ends.
    alone = ChipStream(chips, 1, on_error="skip", cache_bytes=0)
    assert [len(batch["index"]) for batch in alone] == [1] * 6
    shutil.rmtree(tmp_path / "plain")
    for workers in (0, 1):
        loader = ChipLoader(ChipStream(chips, 4, on_error="skip", cache_bytes=0), num_workers=workers)
        with pytest.raises(InputError, match=r"none of 12 chips could be read\. See the log"):
            list(loader)


def test_the_index_is_merged_again_in_the_middle(tmp_path: Path) -> None:
    made = two_scenes(tmp_path)
    stream = ChipStream(open_chips(made.storage), 2, masks=False, on_error="skip")
    batches = iter(stream)
    next(batches)
    state = stream.state_dict()
    path = Path(made.storage) / layout.merged_part(S2, 2020)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 11), path)
    stream.dataset.platforms[S2].chips._kept.tables.clear()  # type: ignore[union-attr]
    with pytest.raises(IndexChangedError, match=r"part-0.parquet: changed since the chips were selected\. Call"):
        received(batches)
    with pytest.raises(IndexChangedError, match="changed since the chips were selected"):
        received(iter(ChipStream(open_chips(made.storage, split=["train", "validate", "test", "buffer"]), 2)))
    merged_again = made_storage(tmp_path / "new", {"plain": sentinel_2(PLAIN, 2020)})
    other = ChipStream(open_chips(merged_again.storage), 2)
    with pytest.raises(InputError, match=r"its selection is .*the index was merged again"):
        other.load_state_dict(state)


def test_few_chips(made: Made) -> None:
    one = open_chips(made.storage, S2).find(PLAIN, 0, 0, ["chipid"])["chipid"].to_pylist()
    import pyarrow.compute as pc

    chips = open_chips(made.storage, S2, where=pc.field("chipid") == one[0])
    stream = ChipStream(chips, 128, masks=False)
    assert (len(stream), len(received(iter(stream)))) == (1, 1)
    ranks = [ChipStream(chips, 128, rank=rank, ranks=4, masks=False) for rank in range(4)]
    assert [len(received(iter(rank))) for rank in ranks] == [1, 0, 0, 0]
    assert {rank.state_dict()["position"] for rank in ranks} == {1}
    with pytest.raises(InputError, match=r"1 chips: make no full batches of 128 for 4 ranks. Take fewer ranks"):
        received(iter(ChipStream(chips, 128, drop_last=True, rank=0, ranks=4)))
    with pytest.raises(InputError, match="no chip is selected"):
        ChipStream(open_chips(made.storage, S2, where=pc.field("chipid") == "none"))
    # A platform without chips in the selection is left out.
    only = open_chips(made.storage, where=pc.field("platform") == S2)
    assert ChipDataset(only).counts == {L2: 0, S2: 18}
    assert sorted(received(iter(ChipStream(only, 5, platforms="equal", masks=False)))) == list(range(18))


def test_a_platform_without_chips_in_the_split(tmp_path: Path) -> None:
    made = made_storage(tmp_path, {"plain": sentinel_2(PLAIN, 2020), "landsat": landsat("LC08", 2020)})
    (split,) = set(open_chips(made.storage).table(["split"])["split"].to_pylist())
    other = next(name for name in SPLITS if name != split)
    path = Path(made.storage) / layout.merged_part(L2, 2020)
    table = pq.read_table(path, partitioning=None)
    column = table.schema.get_field_index("split")
    pq.write_table(table.set_column(column, "split", [[other] * 6]), path)
    parts = [
        part
        if part.platform == S2
        else replace(part, bytes=path.stat().st_size, row_groups={key: [6 * (key == other)] for key in SPLITS})
        for part in read_manifest(made.store)
    ]
    made.store.write(layout.MANIFEST, manifest_of(parts, load_recipe("clay_v1")))
    for chosen, platform in ((split, S2), (other, L2)):
        stream = ChipStream(open_chips(made.storage, split=chosen), 4, platforms="equal", masks=False)
        assert stream.dataset.counts == {L2: 0, S2: 0, platform: 6}
        assert [set(batch["platform"]) for batch in ChipLoader(stream, num_workers=1)] == [{platform}] * 2
    third = next(name for name in SPLITS if name not in (split, other))
    with pytest.raises(InputError, match="no chip is selected"):
        ChipStream(open_chips(made.storage, split=third))


def test_balanced_selections(made: Made) -> None:
    even = [balanced(open_chips(made.storage, key), by="split") for key in (S2, L2)]
    stream = ChipStream(even, 4, masks=False)
    assert sorted(received(iter(ChipLoader(stream, num_workers=1)))) == list(range(sum(map(len, even))))
    with pytest.raises(InputError, match="a balanced selection of landsat-c2l2-sr, sentinel-2-l2a: its batches would"):
        ChipStream(balanced(open_chips(made.storage), by="split"))
    with pytest.raises(InputError, match="sentinel-2-l2a: is in two selections"):
        ChipStream([even[0], open_chips(made.storage)])
    with pytest.raises(InputError, match=r"not a selection\. Pass what `open_chips` or `balanced` gave"):
        ChipDataset(made.storage)  # type: ignore[arg-type]


def test_what_workers_are_sent_is_small(made: Made) -> None:
    chips = open_chips(made.storage)
    dataset = ChipDataset(chips)
    before = len(pickle.dumps(dataset))
    groups = 4400  # of the published index
    many = RowGroups(np.zeros(groups, np.int32), np.arange(groups, dtype=np.int32), np.full(groups, 16_384, np.int32))
    for platform in dataset.platforms.values():
        platform.chips.know(many)  # type: ignore[union-attr]
    assert before < 20_000
    assert len(pickle.dumps(dataset)) < 200_000
    stream = ChipStream(chips, 3)
    again = pickle.loads(pickle.dumps(stream))
    assert received(iter(again), 2) == received(iter(stream), 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pixels": "scaled"}, "pixels 'scaled': not known. Say 'normalised' or 'raw'"),
        ({"radar": "dB"}, "radar 'dB': not known. Say 'db' or 'clay' or 'linear'"),
        ({"on_error": "ignore"}, "on_error 'ignore': not known"),
        ({"bands": ["thermal"]}, "thermal"),
        ({"metadata": "/nowhere.yaml"}, "/nowhere.yaml: cannot be read"),
        ({"rank": 0}, "rank 0 of None: invalid. Pass both"),
        ({"rank": 2, "ranks": 2}, "rank 2 of 2"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_what_is_refused(made: Made, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ChipStream(open_chips(made.storage, S2), **options)


def test_loaders_that_cannot_be(made: Made) -> None:
    dataset = ChipDataset(open_chips(made.storage, S2))
    with pytest.raises(InputError, match="takes a ChipStream, or a ChipDataset with a ChipSampler"):
        ChipLoader(dataset)
    with pytest.raises(InputError, match="ChipLoader: batch_size, shuffle is for the stream or the sampler"):
        ChipLoader(dataset, batch_size=3, shuffle=True)
