"""Releases: an immutable state of the merged index, in a folder and on S3, which reports missing parts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from clay_assets.chips.cells import ChipCell
from clay_assets.chips.manifest import read_history, read_manifest, state_hash
from clay_assets.chips.merge import merge
from clay_assets.chips.releases import faults_of_index, names_of_releases, read_release, release_index
from clay_assets.cli import main
from clay_assets.errors import InputError
from clay_assets.recipes import Recipe
from clay_assets.reconciliation.leftovers import find_leftovers, remove
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore, Store, open_store
from clay_assets.training import open_chips
from clay_assets_tests.chips.factories import L1, S2, made_plan, write_cell, write_land_cover
from clay_assets_tests.conftest import Bucket

TODAY = date(2027, 2, 3)
PLAN = made_plan()
Merge = Callable[..., None]


@pytest.fixture
def merge_all(store: LocalStore, recipe: Recipe, threads: Executor) -> Merge:
    return lambda *cells, into=store: join(into, recipe, threads, *cells)


def join(store: Store, recipe: Recipe, threads: Executor, *cells: ChipCell) -> None:
    merge(list(cells), [write_land_cover(cell) for cell in cells], PLAN, store, recipe, threads, 4)


def ids(store: Store, release: str | None = None, platform: str | None = None) -> set[str]:
    return set(open_chips(store, platform, release=release).table(["chipid"])["chipid"].to_pylist())


def read_and_pick(store: Store, recipe: Recipe, threads: Executor) -> tuple[ChipCell, ChipCell]:
    """Two cells, merged and released as `v1`, and the first merged again with one more scene."""
    first, other = (
        write_cell(store, recipe, S2, 2020, ["S2A_A", "S2A_B"]),
        write_cell(store, recipe, L1, 2019, ["LC_C"]),
    )
    join(store, recipe, threads, first, other)
    release_index(store, "v1", TODAY)
    changed = write_cell(store, recipe, S2, 2020, ["S2A_A", "S2A_B", "S2A_D"])
    join(store, recipe, threads, changed, other)
    return changed, other


def check_two_states(store: Store) -> None:
    assert {name.split("-")[0] for name in ids(store)} == {"S2A_A", "S2A_B", "S2A_D", "LC_C"}
    assert {name.split("-")[0] for name in ids(store, "v1")} == {"S2A_A", "S2A_B", "LC_C"}
    assert len(open_chips(store, L1, release="v1")) == 64
    assert open_chips(store, L1, release="v1").hash == open_chips(store, L1).hash
    assert open_chips(store, S2, release="v1").hash != open_chips(store, S2).hash
    release = read_release(store, "v1")
    assert (release.rows, release.released, release.hash) == (192, "2027-02-03", read_history(store)[0].hash)
    for part in release.parts:
        content = store.read(f"{layout.RELEASES}/{part.path}")
        assert hashlib.blake2b(content, digest_size=16).hexdigest() == part.content
    shared = {part.content for part in release.parts} & {part.content for part in read_manifest(store)}
    release_index(store, "v2", TODAY)
    assert len(store.list(f"{layout.RELEASES}/parts")) == 3  # the other platform's part is shared
    assert len(shared) == 1
    assert ids(store, "v2") == ids(store)
    assert names_of_releases(store) == ["v1", "v2"]


@pytest.mark.slow
def test_a_release_stays_what_it_was(store: LocalStore, recipe: Recipe, threads: Executor) -> None:
    read_and_pick(store, recipe, threads)
    check_two_states(store)
    other = layout.merged_part(L1, 2019)
    kept = next(part for part in read_release(store, "v1").parts if part.platform == L1)
    assert (store.root / other).samefile(store.root / layout.RELEASES / kept.path)  # nothing is stored twice


def test_a_release_on_s3_stays_what_it_was(s3_bucket: Bucket, recipe: Recipe, threads: Executor) -> None:
    store = open_store(f"{s3_bucket.url}/deployment")
    read_and_pick(store, recipe, threads)
    check_two_states(store)
    with pytest.raises(InputError, match="release v1 of 2027-02-03 is another state"):
        release_index(store, "v1", TODAY)
    key = layout.merged_part(L1, 2019)
    content = store.read(key)
    store.write(key, content[:-1] + b"?")
    with pytest.raises(InputError, match=rf"{L1}/2019/part-0.parquet has other content"):
        release_index(store, "v3", TODAY)
    gone = read_release(store, "v1").parts[-1]
    store.delete([f"{layout.RELEASES}/{gone.path}"])
    with pytest.raises(InputError, match=r"1 of its 2 parts cannot be read.*gone.*Nothing of them is left"):
        open_chips(store, release="v1")


def test_the_document_tells_recipe_and_software(store: LocalStore, recipe: Recipe, merge_all: Merge) -> None:
    merge_all(write_cell(store, recipe, S2, 2020, ["S2A_A"]))
    release = release_index(store, "2027.1_final-b", TODAY)
    manifest = json.loads(store.read(layout.MANIFEST))
    stamp = {name: manifest[name] for name in ("recipe_name", "recipe_hash", "recipe", "software_version")}
    assert stamp == {name: getattr(release, name) for name in stamp} == recipe.stamp()
    assert release.citation == (
        f"Chip index clay_v1, release 2027.1_final-b of 2027-02-03: 64 chips in 1 part, BLAKE2b-128 {release.hash}. "
        f"Made with clay_assets {release.software_version}, recipe {recipe.hash}."
    )


def test_the_same_state_under_the_same_name_changes_nothing(
    store: LocalStore, recipe: Recipe, merge_all: Merge
) -> None:
    cells = write_cell(store, recipe, S2, 2020, ["S2A_A"]), write_cell(store, recipe, L1, 2019, ["LC_C"])
    merge_all(*cells)
    first = release_index(store, "v1", TODAY)
    before = {key: store.read(key) for key in store.list("")}
    assert release_index(store, "v1", date(2028, 1, 1)) == first
    assert {key: store.read(key) for key in store.list("")} == before
    store.delete([f"{layout.RELEASES}/{first.parts[0].path}"])
    with pytest.raises(InputError, match="The merged index still has all of them: run `clay-assets release`"):
        open_chips(store, release="v1")
    assert len(open_chips(store, first.parts[1].platform, release="v1")) == 64  # existing parts are used
    release_index(store, "v1", TODAY)
    assert {key: store.read(key) for key in store.list("")} == before


@pytest.mark.slow
def test_another_state_under_the_same_name_is_refused(store: LocalStore, recipe: Recipe, threads: Executor) -> None:
    read_and_pick(store, recipe, threads)
    before = {key: store.read(key) for key in store.list("")}
    with pytest.raises(InputError, match=r"release v1 of 2027-02-03 is another state \(192 chips.*now 256 chips"):
        release_index(store, "v1", TODAY)
    assert {key: store.read(key) for key in store.list("")} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), r"has 100 bytes, not"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), r"has other content \(its hash is not"),
        (lambda path: path.unlink(), r"is gone"),
    ],
    ids=["truncated", "replaced", "removed"],
)
def test_a_part_that_is_not_the_manifests_is_refused(
    store: LocalStore, recipe: Recipe, merge_all: Merge, damage: Callable[[Path], object], said: str
) -> None:
    merge_all(write_cell(store, recipe, S2, 2020, ["S2A_A"]), write_cell(store, recipe, L1, 2019, ["LC_C"]))
    damage(store.root / layout.merged_part(S2, 2020))
    with pytest.raises(InputError, match=rf"so v1 is not released. {S2}/2020/part-0.parquet {said}"):
        release_index(store, "v1", TODAY)
    assert names_of_releases(store) == []


@pytest.mark.slow
@pytest.mark.parametrize("restore", [True, False])
def test_a_pruned_release_says_what_is_gone(
    store: LocalStore, recipe: Recipe, threads: Executor, restore: bool
) -> None:
    read_and_pick(store, recipe, threads)
    kept = {part.platform: store.root / layout.RELEASES / part.path for part in read_release(store, "v1").parts}
    content = kept[S2].read_bytes()
    kept[S2].unlink()
    with pytest.raises(
        InputError, match=rf"1 of its 2 parts cannot be read. {S2} 2020 \(128 chips, .*gone\)\. Nothing"
    ):
        open_chips(store, release="v1")
    kept[S2].write_bytes(content if restore else content[:50])
    if restore:
        assert len(ids(store, "v1")) == 192
        return
    kept[L1].unlink()
    with pytest.raises(InputError, match=rf"2 of its 2 parts.*truncated\)\. The merged index still has {L1} 2019: run"):
        open_chips(store, release="v1")


@pytest.mark.slow
def test_a_release_that_is_not_there_or_was_changed(store: LocalStore, recipe: Recipe, threads: Executor) -> None:
    with pytest.raises(InputError, match=r"release v1 not found\. Releases: none yet"):
        open_chips(store, release="v1")
    with pytest.raises(InputError, match="merged index not found"):
        release_index(store, "v1", TODAY)
    read_and_pick(store, recipe, threads)
    with pytest.raises(InputError, match=r"release v9 not found\. Releases: v1\."):
        open_chips(store, release="v9")
    document = json.loads(store.read(layout.release("v1")))
    for changed, said in (
        (b"{", "cannot be understood"),
        (b"[]", "cannot be understood"),
        (json.dumps({**document, "partitions": document["partitions"][:1]}).encode(), "was changed by hand"),
        (json.dumps({**document, "version": 9}).encode(), "of another version of clay_assets"),
    ):
        store.write(layout.release("v1"), changed)
        with pytest.raises(InputError, match=said):
            open_chips(store, release="v1")


@pytest.mark.parametrize("name", ["", ".", "..", "../v1", "a/b", "-v", ".v1", "v 1", "v1\n", "ü", "v" * 101])
def test_a_name_that_is_none_is_refused(store: LocalStore, name: str) -> None:
    with pytest.raises(InputError, match="is not a name of a release"):
        release_index(store, name, TODAY)
    with pytest.raises(InputError, match="is not a name of a release"):
        open_chips(store, release=name)
    assert not store.root.exists()


# --- checksums -------------------------------------------------------------------------------------------------------


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("sha256sum") is None or shutil.which("b2sum") is None, reason="needs GNU coreutils")
def test_a_release_is_verified_with_standard_tools(store: LocalStore, recipe: Recipe, merge_all: Merge) -> None:
    merge_all(write_cell(store, recipe, S2, 2020, ["S2A_A"]), write_cell(store, recipe, L1, 2019, ["LC_C"]))
    release = release_index(store, "v1", TODAY)
    folder = store.root / layout.RELEASES
    checked = shell("sha256sum --check --strict v1.sha256", folder)
    assert (checked.returncode, sorted(checked.stdout.splitlines())) == (
        0,
        sorted(f"{name}: OK" for name in ("v1.json", *(part.path for part in release.parts))),
    )
    # What a paper cites follows from the files alone: the hash of their hashes and paths in the index.
    assert f"BLAKE2b-128 {release.hash}" in release.citation
    lines = sorted(
        f"{part.path} {shell(f'b2sum -l 128 {kept.path}', folder).stdout.split()[0]}\n"
        for part, kept in zip(release.partitions, release.parts, strict=True)
    )
    document = json.loads((folder / "v1.json").read_text())
    (store.root / "state").write_text("".join(lines))
    (store.root / "recipe").write_text(document["recipe"])  # the document has its full text
    for name, bits, cited in (("state", 128, release.hash), ("recipe", 64, document["recipe_hash"])):
        assert shell(f"b2sum -l {bits} {name}", store.root).stdout.split()[0] == cited
        assert cited in release.citation
    assert f"clay_assets {document['software_version']}" in release.citation
    edit(folder / release.parts[0].path)
    assert shell("sha256sum --check --quiet v1.sha256", folder).stdout == f"{release.parts[0].path}: FAILED\n"


def edit(path: Path) -> None:
    """Change a byte of a Parquet file's pages, leaving its size, footer and modification time the same."""
    told, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))


def test_a_part_that_was_edited_is_found_by_verifying(
    store: LocalStore, recipe: Recipe, merge_all: Merge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAY_STORAGE", str(store.root))

    def verify(*arguments: str) -> tuple[int, dict[str, list[str]]]:
        result = CliRunner().invoke(main, ["release", "--verify", "--json", *arguments])
        return result.exit_code, json.loads(result.stdout)

    cells = write_cell(store, recipe, S2, 2020, ["S2A_A"]), write_cell(store, recipe, L1, 2019, ["LC_C"])
    merge_all(*cells)
    release_index(store, "v1", TODAY)
    assert verify() == (0, {"merged index": [], "release v1": []})
    other = layout.merged_part(S2, 2020)
    edit(store.root / other)  # also changes the release, as both are one file
    name = f"{S2}/2020/part-0.parquet has other content"
    status, found = verify()
    assert status == 1
    assert name in found["merged index"][0]
    assert found["release v1"][0].startswith(f"{S2} 2020: parts/")
    os.utime(store.root / other)
    merge_all(*cells)  # writes the part again; the release then keeps it again
    assert faults_of_index(store) == []
    assert verify("v1")[0] == 1
    release_index(store, "v1", TODAY)
    assert verify("v1") == (0, {"release v1": []})
    store.write(layout.release_checksums("v1"), b"")
    assert verify("v1") == (1, {"release v1": ["chips/releases/v1.sha256 was changed"]})
    store.write(layout.release("v1"), b"{")
    result = CliRunner().invoke(main, ["release", "v1", "--verify"])
    assert result.exit_code == 1
    assert "release v1: " in result.stdout
    assert "cannot be understood" in result.stdout


def test_prune_leaves_releases_alone(store: LocalStore, recipe: Recipe, threads: Executor) -> None:
    read_and_pick(store, recipe, threads)
    kept = {key: store.read(key) for key in store.list(layout.RELEASES)}
    remove(store, find_leftovers(store, 0, time.time() + 1))
    assert {key: store.read(key) for key in store.list(layout.RELEASES)} == kept
    assert len(ids(store, "v1")) == 192


# --- the history -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_manifest_keeps_the_states_that_the_index_had(store: LocalStore, recipe: Recipe, merge_all: Merge) -> None:
    first, other = write_cell(store, recipe, S2, 2020, ["S2A_A"]), write_cell(store, recipe, L1, 2019, ["LC_C"])
    merge_all(first)
    hashes = [state_hash(read_manifest(store))]
    manifest = store.read(layout.MANIFEST)
    merge_all(first)
    assert store.read(layout.MANIFEST) == manifest
    merge_all(first, other)
    hashes.append(state_hash(read_manifest(store)))
    merge_all(first)
    history = read_history(store)
    assert [state.hash for state in history] == [*hashes, hashes[0]]
    assert [state.rows for state in history] == [64, 128, 64]
    assert [list(state.changed) for state in history] == [
        [f"{S2}/2020/part-0.parquet"],
        [f"{L1}/2019/part-0.parquet"],
        [f"{L1}/2019/part-0.parquet"],
    ]
    assert history[-1].changed == {f"{L1}/2019/part-0.parquet": None}
    assert {state.recipe_hash for state in history} == {recipe.hash}


def test_a_manifest_without_a_history_begins_with_what_it_tells(
    store: LocalStore, recipe: Recipe, merge_all: Merge
) -> None:
    first = write_cell(store, recipe, S2, 2020, ["S2A_A"])
    merge_all(first)
    document = json.loads(store.read(layout.MANIFEST))
    kept = document.pop("history")
    store.write(layout.MANIFEST, json.dumps({**document, "software_version": "0.0.7"}).encode())
    merge_all(first, write_cell(store, recipe, L1, 2019, ["LC_C"]))
    history = read_history(store)
    assert history[0].hash == kept[0]["hash"]
    assert history[0].software_version == "0.0.7"
    assert len(history) == 2
    store.write(layout.MANIFEST, json.dumps({**document, "history": [{"hash": 1}]}).encode())
    with pytest.raises(InputError, match="cannot be understood"):
        read_history(store)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command(
    store: LocalStore, recipe: Recipe, threads: Executor, merge_all: Merge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAY_STORAGE", str(store.root))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["release", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "There are no releases." in run()
    read_and_pick(store, recipe, threads)
    said = run("v2")
    release = read_release(store, "v2")
    assert release.citation in said
    assert [line.split() for line in said.splitlines()[:2]] == [
        [part.platform, str(part.year), f"{part.rows}", "chips", part.content] for part in release.partitions
    ]
    assert f'open_chips("{store.root}", release="v2")' in said
    lines = run().splitlines()
    assert [line.split()[:5] for line in lines[1:]] == [
        [name, made.released, str(made.rows), "2", made.hash]
        for name, made in (("v2", release), ("v1", read_release(store, "v1")))
    ]
    assert [line.endswith("as it is now") for line in lines[1:]] == [True, False]
    assert json.loads(run("v2", "--json"))["hash"] == release.hash
    assert [entry["name"] for entry in json.loads(run("--json"))] == ["v1", "v2"]
    refused = CliRunner().invoke(main, ["release", "v1"])
    assert refused.exit_code == 1
    assert "is another state" in refused.stderr
    store.write(layout.release("v1"), b"{")
    listed = CliRunner().invoke(main, ["release"])
    assert "v2" in listed.stdout
    assert "v1.json: cannot be understood" in listed.stderr
