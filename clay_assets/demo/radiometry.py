"""Which Sentinel-2 scenes have an offset of 1000 in their digital numbers, and what their items state.

As in the real catalogue, scenes before baseline 04.00 have no offset; later ones may have it, and half of their items
state it wrongly. Only places with a second set of files have scenes with the offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clay_assets.demo.calendar import Scene
from clay_assets.demo.noise import generator
from clay_assets.demo.sites import Site, sentinel_2_sites

OFFSET = 1000
OFFSET_SINCE = 2022  # the first full year in which all scenes were processed with it
EVERY = 2  # every second place has files with the offset
FORMER, LATER = ("02.12", "02.14", "03.01"), ("04.00", "05.00", "05.09", "05.11")


@dataclass(frozen=True)
class Numbers:
    """The scaling of a scene's digital numbers, and what its item states.

    Attributes:
        baseline: processing baseline.
        offset: true offset of the numbers, 0 or 1000.
        stated: offset according to the item.
        applied: `earthsearch:boa_offset_applied`; None: missing from the item.
        noted: offset in its `raster:bands`, in reflectance.
    """

    baseline: str
    offset: int
    stated: int
    applied: bool | None
    noted: float

    @property
    def truth(self) -> dict[str, Any]:
        """Its row of `Planet.radiometry`."""
        return {"baseline": self.baseline, "offset": self.offset, "stated": self.stated}


def has_offset_files(site: Site) -> bool:
    """Whether a place has a second set of files, with the offset."""
    return sentinel_2_sites().index(site) % EVERY == 0


def numbers(seed: int, scene: Scene) -> Numbers:
    """The scaling of a scene's numbers; of two processings the second has the higher baseline."""
    rng = generator(seed, "radiometry", scene.site.name, scene.lucky, scene.sequence)
    former, later = str(rng.choice(FORMER)), str(rng.choice(LATER))
    there, lie, plain, early = (bool(one) for one in rng.integers(2, size=4))
    again = scene.quarter_kind == "two_processings"
    if scene.year < OFFSET_SINCE and (scene.sequence == 0 if again else early):
        return Numbers(former, 0, 0, False, 0.0)
    if again:
        later = LATER[-1] if scene.sequence else LATER[0]
    offset = OFFSET if there and has_offset_files(scene.site) else 0
    stated = OFFSET - offset if lie else offset
    # Earth Search states the product's offset even where it has removed it; other catalogues state nothing else.
    return (
        Numbers(later, offset, stated, None, -0.1 if stated else 0.0)
        if plain
        else Numbers(later, offset, stated, stated == 0, -0.1)
    )
