"""Clay's own loader and encoder, unchanged, as an oracle: our tensors are equal bit for bit."""

from __future__ import annotations

import importlib
import os
import random
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from box import Box

from clay_assets.training.chipper import Chipper
from clay_assets.training.dataset import ChipDataset
from clay_assets.training.metadata import PUBLISHED, read_metadata
from clay_assets.training.selection import open_chips
from clay_assets.training.tensors import collate
from clay_assets_tests.training.made_scenes import KINDS, Made

RADAR = "sentinel-1-rtc"
WEEK_53 = 53 * 2 * np.pi / 52


class Normalize:
    """Like torchvision's, and records the pixels passed to it."""

    given: torch.Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        Normalize.given = pixels.clone()
        return pixels.sub(self.mean).div_(self.std)


def stub(name: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(names, __spec__=ModuleSpec(name, None))
    sys.modules[name] = module
    return module


def composed(steps: list[Any]) -> Any:
    def apply(pixels: torch.Tensor) -> torch.Tensor:
        for step in steps:
            pixels = step(pixels)
        return pixels

    return apply


@pytest.fixture(scope="module")
def clay() -> SimpleNamespace:
    """Claymodel 1.5.0; imports besides PyTorch that are not needed here are stubbed, and flips do nothing."""

    def unflipped(p: float) -> Any:
        return lambda pixels: pixels

    v2 = stub(
        "torchvision.transforms.v2",
        Compose=composed,
        Normalize=Normalize,
        RandomHorizontalFlip=unflipped,
        RandomVerticalFlip=unflipped,
    )
    stub("torchvision")
    stub("torchvision.transforms", v2=v2)
    stub("lightning", LightningDataModule=object)
    stub("timm")
    stub("sklearn")
    stub("sklearn.model_selection", train_test_split=None)
    sys.path.insert(0, os.environ["ORACLE_CLAYMODEL"])
    return SimpleNamespace(data=importlib.import_module("src.datamodule"), model=importlib.import_module("src.model"))


def clay_batch(clay: SimpleNamespace, folder: Path, chips: Any, hour: int | None = None) -> dict[str, Any]:
    """The batch that Clay's loader makes from a cube of chips, with `hour` instead of theirs."""
    path = folder / chips.platform / "cube_0.npz"
    path.parent.mkdir(exist_ok=True)
    hours = chips.time[:, 2:]
    if hour is not None:
        hours = np.broadcast_to([np.sin(hour * np.pi / 12), np.cos(hour * np.pi / 12)], hours.shape).astype(np.float32)
    lat, lon = chips.latlon[:, :2], chips.latlon[:, 2:]
    np.savez(path, pixels=chips.pixels, lat_norm=lat, lon_norm=lon, week_norm=chips.time[:, :2], hour_norm=hours)
    metadata = Box(yaml.safe_load(PUBLISHED.read_text()))
    dataset = clay.data.EODataset([path], 256, list(KINDS), metadata)
    random.seed(0)  # a fifth of all chips get no time and location; this draw is not one of them
    found: dict[str, Any] = clay.data.batch_collate([dataset[0]])
    return found


@pytest.mark.parametrize("platform", KINDS)
def test_clay_reads_the_same(seven: Made, clay: SimpleNamespace, platform: str, tmp_path: Path) -> None:
    chips = open_chips(seven.storage, platform, years=2020)
    cube = Chipper(chips).batch(range(len(chips)))
    theirs = clay_batch(clay, tmp_path, cube)
    raw, made = (
        collate(ChipDataset(chips, pixels=pixels, radar="clay").__getitems__(range(len(chips))))
        for pixels in ("raw", "normalised")
    )
    assert made["pixels"].dtype == torch.float32
    assert torch.equal(raw["pixels"], Normalize.given)
    assert torch.equal(made["time"], theirs["time"])
    assert torch.equal(made["latlon"], theirs["latlon"])
    assert theirs["platform"] == [platform]
    assert set(made["platform"]) == {platform}
    # As in Clay's model.
    metadata = Box(yaml.safe_load(PUBLISHED.read_text()))[platform]
    waves, gsd = torch.tensor(list(metadata.bands.wavelength.values())), torch.tensor(metadata.gsd)
    assert list(metadata.bands.wavelength) == metadata.band_order == list(cube.bands)
    for ours, clays in ((made["waves"], waves), (made["gsd"], gsd)):
        assert ours.dtype == clays.dtype
        assert torch.equal(ours, clays)
    # From the formula, in double precision.
    mean, std = (np.array(list(metadata.bands[name].values()))[:, None, None] for name in ("mean", "std"))
    exact = (Normalize.given.numpy().astype(np.float64) - mean) / std
    np.testing.assert_allclose(made["pixels"].numpy(), exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(made["pixels"], theirs["pixels"])
    # Two things differ from the published cubes: the hour is the actual one, not always 12, and there is a week 53.
    published = clay_batch(clay, tmp_path, cube, hour=12)
    assert torch.equal(made["time"][:, :2], published["time"][:, :2])
    assert not torch.isclose(made["time"][:, 2:], published["time"][:, 2:]).all()
    np.testing.assert_allclose(made["time"][0, :2], [np.sin(WEEK_53), np.cos(WEEK_53)], atol=1e-7)
    np.testing.assert_allclose(made["time"][0, 2:], [np.sin(17 * np.pi / 12), np.cos(17 * np.pi / 12)], atol=1e-7)
    # The encoder accepts the batch.
    torch.manual_seed(1)
    encoder = clay.model.Encoder(
        mask_ratio=0.75, patch_size=32, shuffle=True, dim=40, depth=1, heads=1, dim_head=8, mlp_ratio=1
    )
    with torch.no_grad():
        encoded, *_ = encoder(made)
    assert encoded.shape == (len(chips), 1 + 64 // 4, 40)
    assert torch.isfinite(encoded).all()


def test_radar_without_power_is_left_out(seven: Made) -> None:
    chips = open_chips(seven.storage, RADAR)
    linear, clay, db, normal = (
        collate(ChipDataset(chips, pixels=pixels, radar=radar).__getitems__([0, 1]))  # type: ignore[arg-type]
        for pixels, radar in (("raw", "linear"), ("raw", "clay"), ("raw", "db"), ("normalised", "db"))
    )
    power = linear["pixels"] > 0
    assert 0.05 < (~power).float().mean() < 0.15
    assert torch.equal(db["valid"], power.all(dim=1))
    assert torch.equal(db["pixels"][power], clay["pixels"][power])
    assert (clay["pixels"][~power] == -100).all()
    assert (normal["pixels"][~power] == 0).all()
    mean = list(read_metadata()[RADAR].mean.values())
    for band in range(2):
        np.testing.assert_allclose(db["pixels"][:, band][~power[:, band]], mean[band], rtol=1e-6)
