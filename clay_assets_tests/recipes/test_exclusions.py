"""A recipe's exclusions, and the messages for invalid entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from clay_assets.errors import InputError
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.recipes.exclusions import chip_place

BEFORE = """\
name = "mine"
seed = 7

[[tile_rules]]
rule = "towns"
class = "Built-up"
tiles = 3
from_highest = 5
"""
SCENE = '[[exclude]]\nplatform = "naip"\nscene = "m_1"\nreason = "a seam"\n'
CHIP = '[[exclude]]\nplatform = "naip"\nchip = "m_2-3-14"\nreason = "a plane"\n'


def load(folder: Path, text: str) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(BEFORE + text, encoding="utf-8")
    return load_recipe(path)


def test_scenes_and_chips_are_told_by_platform(tmp_path: Path) -> None:
    recipe = load(tmp_path, SCENE + CHIP + CHIP.replace("3-14", "0-0") + SCENE.replace("naip", "linz"))
    assert recipe.excluded_scenes("naip") == {"m_1": "a seam"}
    assert recipe.excluded_chips("naip") == {"m_2": {"m_2-3-14": "a plane", "m_2-0-0": "a plane"}}
    assert (recipe.excluded_scenes("linz"), recipe.excluded_chips("linz")) == ({"m_1": "a seam"}, {})
    assert (recipe.excluded_scenes("modis"), recipe.excluded_chips("modis")) == ({}, {})


def test_the_hash_tells_of_exclusions_but_not_of_their_order(tmp_path: Path) -> None:
    none, both = load(tmp_path, ""), load(tmp_path, SCENE + CHIP)
    assert '"exclude"' not in none.document  # so the hash is the same as before exclusions existed
    assert none.hash != load(tmp_path, SCENE).hash != both.hash
    assert load(tmp_path, CHIP + SCENE).hash == both.hash


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SCENE.replace("naip", "nape"), "exclusion 1 (m_1), platform: 'nape': unknown platform; known: "),
        (SCENE.replace('platform = "naip"\n', ""), "exclusion 1 (m_1), platform: Field required"),
        (SCENE.replace('reason = "a seam"\n', ""), "exclusion 1 (m_1), reason: Field required"),
        (CHIP + SCENE.replace("a seam", " \t "), "exclusion 2 (m_1), reason: is empty; say why"),
        (SCENE.replace('scene = "m_1"\n', ""), "exclusion 1 (unnamed): names neither a scene nor a chip"),
        (SCENE + 'chip = "m_1-0-0"\n', "exclusion 1 (m_1): names a scene and a chip; write an entry for each"),
        (SCENE.replace("m_1", ""), "exclusion 1 (), scene: '' is empty, or starts or ends with whitespace"),
        (SCENE.replace("m_1", "m_1 "), "exclusion 1 (m_1 ), scene: 'm_1 ' is empty, or starts or ends with whitespace"),
        (SCENE.replace('"m_1"', "7"), "exclusion 1 (7), scene: Input should be a valid string"),
        (SCENE.replace("scene", "item"), "exclusion 1 (unnamed), item: no such field; check the spelling"),
        (CHIP.replace("m_2-3-14", "m_2"), "exclusion 1 (m_2), chip: 'm_2' is not a chip id {item_id}-{x}-{y}"),
        (CHIP.replace("m_2-3-14", "m_2-03-14"), "chip: 'm_2-03-14' is not a chip id"),
        (CHIP.replace("m_2-3-14", "-3-14"), "chip: '-3-14' is not a chip id"),
        (SCENE + CHIP + SCENE, "exclude: scene m_1 of naip: excluded twice; keep one entry"),
        (CHIP + CHIP.replace("a plane", "a bird"), "exclude: chip m_2-3-14 of naip: excluded twice"),
        ('[exclude]\nscene = "m_1"\n', "exclude: must be a list of exclusions, each [[exclude]]"),
        ("[platforms]\n[[exclude]]\n", "exclusion 1 (unnamed), platform: Field required"),
    ],
)
def test_each_mistake_is_told_by_file_and_entry(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"recipe {tmp_path / 'mine.toml'}: ")


@pytest.mark.parametrize(
    ("chipid", "place"),
    [
        ("a-1-2", ("a", 1, 2)),
        ("a-b-10-0", ("a-b", 10, 0)),
        ("LC08 (x)-1-2", ("LC08 (x)", 1, 2)),
        ("a-1", None),
        ("a-1-", None),
        ("a-1-x", None),
        ("a-01-2", None),
        ("a-1-²", None),
        ("-1-2", None),
        ("", None),
    ],
)
def test_a_chip_id_tells_scene_and_place(chipid: str, place: tuple[str, int, int] | None) -> None:
    assert chip_place(chipid) == place
