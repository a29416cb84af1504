"""A recipe's exclusions by id: scenes that are never picked and chips that are never indexed, each with a reason.

An exclusion names one item or one chip of a platform. It does not affect other items of the same acquisition: an older
processing of an excluded item can still be picked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clay_assets.platforms import PLATFORMS

NOTHING: Mapping[str, str] = MappingProxyType({})  # no exclusions


class ChipPlace(NamedTuple):
    """The parts of a chip id: its scene, and its column and row in that scene."""

    item_id: str
    x: int
    y: int


def chip_place(chipid: str) -> ChipPlace | None:
    """Parse a chip id `{item_id}-{x}-{y}`; None if it is not a valid one."""
    item_id, *place = chipid.rsplit("-", 2)
    numbers = [int(text) for text in place if text.isascii() and text.isdigit() and text == str(int(text))]
    return ChipPlace(item_id, *numbers) if item_id and len(numbers) == len(ChipPlace._fields) - 1 else None


class Exclusion(BaseModel):
    """One excluded scene or chip."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: str = Field(description="platform key")
    scene: str | None = Field(default=None, description="id of the STAC item, as the ledgers have it")
    chip: str | None = Field(default=None, description="`{item_id}-{x}-{y}`, as the chip index has it")
    reason: str = Field(description="why it is excluded; repeated in the ledgers")

    @field_validator("platform")
    @classmethod
    def _platform_exists(cls, value: str) -> str:
        if value not in PLATFORMS:
            raise ValueError(f"{value!r}: unknown platform; known: {', '.join(sorted(PLATFORMS))}")
        return value

    @field_validator("reason")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; say why it is excluded")
        return " ".join(value.split())

    @field_validator("scene", "chip")
    @classmethod
    def _an_id(cls, value: str | None) -> str | None:
        if value is not None and (not value or value != value.strip()):
            raise ValueError(f"{value!r} is empty, or starts or ends with whitespace; copy the id exactly")
        return value

    @field_validator("chip")
    @classmethod
    def _a_chip(cls, value: str | None) -> str | None:
        if value is not None and chip_place(value) is None:
            raise ValueError(f"{value!r} is not a chip id {{item_id}}-{{x}}-{{y}}; use scene to exclude a whole scene")
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> Exclusion:
        if self.scene is not None and self.chip is not None:
            raise ValueError("names a scene and a chip; write an entry for each")
        if self.scene is None and self.chip is None:
            raise ValueError("names neither a scene nor a chip; add one of them")
        return self

    @property
    def name(self) -> str:
        """Id of the scene or chip."""
        return str(self.scene if self.chip is None else self.chip)

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity of the excluded object: platform, `scene` or `chip`, id."""
        return self.platform, "scene" if self.chip is None else "chip", self.name


def check_each_once(exclusions: Iterable[Exclusion]) -> None:
    """Check that nothing is excluded twice, which would leave its reason ambiguous.

    Raises:
        ValueError: names each duplicate.
    """
    keys = [exclusion.key for exclusion in exclusions]
    seen: set[tuple[str, str, str]] = set()
    repeated = sorted({key for key in keys if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
    if repeated:
        listed = ", ".join(f"{kind} {name} of {platform}" for platform, kind, name in repeated)
        raise ValueError(f"{listed}: excluded twice; keep one entry and its reason")


def scenes_of(exclusions: Iterable[Exclusion], platform: str) -> dict[str, str]:
    """Item id → reason of the excluded scenes of a platform."""
    return {one.scene: one.reason for one in exclusions if one.platform == platform and one.scene is not None}


def chips_of_scene(exclusions: Iterable[Exclusion], platform: str, item_id: str) -> list[str]:
    """Sorted ids of the excluded chips of one scene; faster than `chips_of` when only one scene is needed."""
    near = (one.chip for one in exclusions if one.chip and one.chip.startswith(item_id) and one.platform == platform)
    return sorted(chip for chip in near if (place := chip_place(chip)) and place.item_id == item_id)


def chips_of(exclusions: Iterable[Exclusion], platform: str) -> dict[str, dict[str, str]]:
    """Item id → chip id → reason of the excluded chips of a platform."""
    found: dict[str, dict[str, str]] = {}
    for one in exclusions:
        place = chip_place(one.chip) if one.chip is not None and one.platform == platform else None
        if place is not None:
            found.setdefault(place.item_id, {})[str(one.chip)] = one.reason
    return found
