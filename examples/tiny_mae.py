"""A masked autoencoder small enough for two cores, for chips of any platform and any number of bands.

As in Clay, bands are identified by their wavelengths, and the model gets each chip's time, location and pixel size.
Replace it with your own model: the scripts in this folder need `forward(batch, generator) -> loss` and `embed(batch) ->
vectors`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PATCH = 32  # pixels per side
PATCHES = (256 // PATCH) ** 2
KEPT = PATCHES // 4  # patches that the encoder sees

Batch = dict[str, Any]


def patches_of(pixels: Tensor) -> Tensor:
    """Reshape (chips, bands, 256, 256) to (chips, bands, patches, pixels of a patch)."""
    cut = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    return cut.reshape(*pixels.shape[:2], PATCHES, PATCH * PATCH)


def waved(numbers: Tensor, dim: int) -> Tensor:
    """Sine and cosine features of the logarithm of numbers, at several frequencies; (n,) → (n, dim)."""
    angles = numbers.log()[:, None] * 2.0 ** torch.arange(dim // 2, device=numbers.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def transformer(dim: int, depth: int) -> nn.Module:
    """A plain transformer encoder."""
    layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)


class TinyMAE(nn.Module):
    """A masked autoencoder that predicts three quarters of a chip's patches from the rest."""

    def __init__(self, dim: int = 96) -> None:
        super().__init__()
        self.dim = dim
        self.patch = nn.Linear(PATCH * PATCH, dim)
        self.wave = nn.Sequential(nn.Linear(8, dim), nn.GELU(), nn.Linear(dim, dim))
        self.context = nn.Sequential(nn.Linear(4 + 4 + 8, dim), nn.GELU(), nn.Linear(dim, dim))
        self.position = nn.Parameter(torch.randn(PATCHES, dim) * 0.02)
        self.hidden = nn.Parameter(torch.zeros(dim))
        self.encoder, self.decoder = transformer(dim, 2), transformer(dim, 1)
        self.guess = nn.Sequential(nn.GELU(), nn.Linear(dim, PATCH * PATCH))

    def tokens(self, batch: Batch, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One token per patch, its encoded location and time, and the encoded bands."""
        bands = self.wave(waved(batch["waves"], 8))
        chips = len(batch["pixels"])
        gsd = waved(batch["gsd"].float().expand(chips), 8)
        context = self.context(torch.cat([batch["time"], batch["latlon"], gsd], dim=1))
        place = context[:, None] + self.position
        seen = nn.functional.gelu(self.patch(patches) + bands[:, None]).mean(dim=1)
        return seen + place, place, bands

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of the masked valid pixels, in squared standard deviations of their band.

        An empty batch gives a loss of 0, and gradients of 0.
        """
        patches = patches_of(batch["pixels"])
        tokens, place, bands = self.tokens(batch, patches)
        order = torch.rand(tokens.shape[:2], generator=generator).argsort(dim=1).to(tokens.device)
        kept = order[:, :KEPT, None].expand(-1, -1, self.dim)
        encoded = self.encoder(tokens.gather(1, kept))
        guessed = self.decoder((self.hidden + place).scatter(1, kept, encoded))
        error = (self.guess(guessed[:, None] + bands[:, None]) - patches) ** 2
        hidden = torch.ones(tokens.shape[:2], device=tokens.device).scatter(1, order[:, :KEPT], 0.0)
        weight = patches_of(batch["valid"][:, None].float()) * hidden[:, None, :, None]
        return (error * weight).sum() / (weight.sum() * len(bands)).clamp(min=1)

    def embed(self, batch: Batch) -> Tensor:
        """One embedding per chip, from all its patches; (chips, dim)."""
        tokens, _, _ = self.tokens(batch, patches_of(batch["pixels"]))
        vectors: Tensor = self.encoder(tokens).mean(dim=1)
        return vectors
