"""Releases: named states of the merged index that are kept, so that a paper can cite them.

A release is a document that lists its parts, with the recipe and the software that made them. The merge replaces parts,
so a release keeps them under the hashes of their contents: as hard links on a local file system, as server-side copies
on S3. Releases share unchanged parts. The document is written after its parts, and a name is never reused for another
state. The checksums of all files are stored alongside, in the format of `sha256sum --check`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import PurePosixPath

from clay_assets.chips.manifest import Part, encoded, parts_of, read_document, read_manifest, state_hash
from clay_assets.errors import InputError
from clay_assets.storage import layout
from clay_assets.storage.stores import Digest, Store

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHOWN = 10  # parts listed in a message
RELEASE_VERSION = 1


@dataclass(frozen=True)
class Release:
    """A named state of the merged index.

    Attributes:
        name: name of the release.
        released: date of the release, UTC.
        hash: the state's hash, as in the manifest's history.
        rows: number of chips.
        partitions: its parts, with their paths in the merged index.
        sha256: hash of each part's file, in the order of the parts.
        recipe_name: name of the recipe that the state was merged with.
        recipe_hash: the recipe's hash.
        recipe: the recipe's full text.
        software_version: version that merged the state.
    """

    name: str
    released: str
    hash: str
    rows: int
    partitions: tuple[Part, ...]
    sha256: tuple[str, ...]
    recipe_name: str
    recipe_hash: str
    recipe: str
    software_version: str

    @property
    def parts(self) -> list[Part]:
        """Its parts, with their paths below the folder of releases."""
        return [replace(part, path=_kept(part)) for part in self.partitions]

    @property
    def citation(self) -> str:
        """The text for a paper to cite."""
        parts = "1 part" if len(self.partitions) == 1 else f"{len(self.partitions)} parts"
        return (
            f"Chip index {self.recipe_name}, release {self.name} of {self.released}: {self.rows:,} chips in {parts}, "
            f"BLAKE2b-128 {self.hash}. Made with clay_assets {self.software_version}, recipe {self.recipe_hash}."
        )


def release_index(store: Store, name: str, today: date) -> Release:
    """Save the state of the merged index, with its parts, under a name.

    Repeating a release with the same name and state only restores missing or damaged parts.

    Args:
        store: storage of the merged index.
        name: the release's name, of letters, digits, `.`, `_` and `-`.
        today: date of the release.

    Raises:
        InputError: the name is invalid or used for another state, the merged index is missing, or a part does not match
            the manifest; names the part. No release is made.
        StorageError: the store is not writable.
    """
    check_name(name)
    document = read_document(store)
    parts = [] if document is None else parts_of(document, store)
    if document is None or not parts:
        raise InputError(f"{store.uri(layout.MANIFEST)}: merged index not found. Materialise merged_index.")
    stamp = {field: str(document.get(field, "")) for field in STAMPED}
    rows, state = sum(part.rows for part in parts), state_hash(parts)
    if store.exists(layout.release(name)):
        _check_same(store, name, state, rows)  # before parts are read
    kept = [_keep(store, part) for part in parts]
    if wrong := [fault for fault in kept if isinstance(fault, str)]:
        raise InputError(
            f"{store.uri(layout.MERGED)}: is not what chips/manifest.json says, so {name} is not released. "
            f"{_some(wrong)}. If a merge is running, wait for its end; otherwise delete these and materialise "
            "merged_index."
        )
    sha256 = tuple(digest.sha256 for digest in kept if isinstance(digest, Digest))
    made = Release(name, today.isoformat(), state, rows, tuple(parts), sha256, **stamp)
    if not store.create(layout.release(name), _encoded(made)):
        made = _check_same(store, name, state, rows)
    store.write(layout.release_checksums(name), _checksums(store, made))
    return made


def read_release(store: Store, name: str) -> Release:
    """Read a release by name; its parts are not checked.

    Raises:
        InputError: the name is unknown, or the release's document is invalid.
    """
    check_name(name)
    key = layout.release(name)
    try:
        document = json.loads(store.read(key))
        partitions = tuple(Part(**entry) for entry in document.pop("partitions"))
        sha256 = tuple(map(str, document.pop("sha256")))
        if document.pop("version") != RELEASE_VERSION:
            raise ValueError("of another version of clay_assets")
        found = Release(partitions=partitions, sha256=sha256, **document)
    except FileNotFoundError as error:
        known = ", ".join(names_of_releases(store)) or "none yet"
        raise InputError(f"{store.uri(key)}: release {name} not found. Releases: {known}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{store.uri(key)}: cannot be understood ({error!r}). Restore it from a copy, or delete it and release "
            "under another name."
        ) from error
    if found.hash != state_hash(partitions) or found.name != name or len(sha256) != len(partitions):
        raise InputError(
            f"{store.uri(key)}: was changed by hand, its hash is not that of its parts. Restore it from a copy."
        )
    return found


def names_of_releases(store: Store) -> list[str]:
    """The names of all releases, in alphabetical order."""
    documents = [PurePosixPath(key) for key in store.list(layout.RELEASES, ".json")]
    return sorted(path.stem for path in documents if str(path.parent) == layout.RELEASES)


def check_kept(store: Store, release: Release, parts: Sequence[Part]) -> None:
    """Check that parts of a release exist, by their sizes.

    Args:
        store: storage of the release.
        release: the release.
        parts: the parts to check, from `release.parts`.

    Raises:
        InputError: parts are missing; names them, and says whether they can be restored.
    """
    sizes = store.list(f"{layout.RELEASES}/parts")
    gone = [part for part in parts if sizes.get(f"{layout.RELEASES}/{part.path}") != part.bytes]
    if not gone:
        return
    standing = set[str]()
    with suppress(InputError):  # an invalid manifest lists no parts
        standing = {part.content for part in read_manifest(store) if store.size(_merged(part)) == part.bytes}
    left = [part for part in gone if part.content in standing]
    told = [
        f"{part.platform} {part.year} ({part.rows:,} chips, {layout.RELEASES}/{part.path}, "
        + ("truncated)" if sizes.get(f"{layout.RELEASES}/{part.path}") else "gone)")
        for part in gone
    ]
    if not left:
        remedy = "Nothing of them is left in the merged index. Restore these files from a copy, or open another release"
    else:
        some = "all of them" if len(left) == len(gone) else ", ".join(f"{part.platform} {part.year}" for part in left)
        remedy = f"The merged index still has {some}: run `clay-assets release` with a new name, which keeps that again"
        remedy += "" if len(left) == len(gone) else ", and restore the other files from a copy"
    raise InputError(
        f"{store.uri(layout.release(release.name))}: {len(gone)} of its {len(release.partitions)} parts cannot be "
        f"read. {_some(told)}. {remedy}."
    )


def faults_of_release(store: Store, name: str) -> list[str]:
    """How a release's files differ from its document; reads all of them.

    Raises:
        InputError: as `read_release`.
    """
    release, faults = read_release(store, name), list[str]()
    for part, sha256 in zip(release.parts, release.sha256, strict=True):
        found = _digest_or_fault(store, f"{layout.RELEASES}/{part.path}", part)
        if isinstance(found, str):
            faults.append(f"{part.platform} {part.year}: {found}")
        elif found.sha256 != sha256:
            faults.append(f"{part.platform} {part.year}: its SHA-256 is {found.sha256}, the document has {sha256}")
    checksums = layout.release_checksums(name)
    try:
        if store.read(checksums) != _checksums(store, release):
            faults.append(f"{checksums} was changed")
    except FileNotFoundError:
        faults.append(f"{checksums} is gone")
    return faults


def faults_of_index(store: Store) -> list[str]:
    """How the merged index differs from its manifest; reads all of its files.

    Raises:
        InputError: the manifest is invalid.
    """
    found = (_digest_or_fault(store, _merged(part), part) for part in read_manifest(store))
    return [fault for fault in found if isinstance(fault, str)]


def check_name(name: str) -> None:
    """Raise an error for an invalid name of a release.

    Raises:
        InputError: the name is invalid; says which names are valid.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r}: is not a name of a release. Use letters, digits, '.', '_' and '-', up to 100 of them, "
            "and begin with a letter or digit."
        )


STAMPED = ("recipe_name", "recipe_hash", "recipe", "software_version")


def _check_same(store: Store, name: str, state: str, rows: int) -> Release:
    known = read_release(store, name)
    if known.hash != state:
        raise InputError(
            f"{store.uri(layout.release(name))}: release {name} of {known.released} is another state "
            f"({known.rows:,} chips, {known.hash}; now {rows:,} chips, {state}), and stays. Choose another name."
        )
    return known


def _keep(store: Store, part: Part) -> Digest | str:
    """Keep a part; returns its hashes, or what is wrong with it."""
    kept = f"{layout.RELEASES}/{_kept(part)}"

    def read(key: str) -> Digest | None:
        if store.size(kept) == part.bytes and store.digest(kept).blake2b == part.content:  # kept for another release
            return store.digest(key)
        return store.keep(key, kept, part.content)

    return _digest_or_fault(store, _merged(part), part, read)


def _digest_or_fault(
    store: Store, key: str, part: Part, read: Callable[[str], Digest | None] | None = None
) -> Digest | str:
    """Hashes of a part's file, or why it does not match; `read` is `store.digest`, or gives None for other content."""
    size = store.size(key)
    if size is not None and size != part.bytes:
        return f"{part.path} has {size:,} bytes, not {part.bytes:,}"
    try:
        found = (read or store.digest)(key)
    except FileNotFoundError:
        return f"{part.path} is gone"
    if found is None or found.blake2b != part.content:
        return f"{part.path} has other content (its hash is not {part.content})"
    return found


def _merged(part: Part) -> str:
    return f"{layout.MERGED}/{part.path}"


def _kept(part: Part) -> str:
    return layout.released_part(part.content).removeprefix(f"{layout.RELEASES}/")


def _encoded(release: Release) -> bytes:
    return encoded({"version": RELEASE_VERSION, **asdict(release)})


def _checksums(store: Store, release: Release) -> bytes:
    """Lines in the format of `sha256sum`, with paths below the folder of releases: the document and each part once."""
    of_files = {part.path: digest for part, digest in zip(release.parts, release.sha256, strict=True)}
    document = layout.release(release.name)
    of_files[document.removeprefix(f"{layout.RELEASES}/")] = store.digest(document).sha256
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(of_files.items())).encode()


def _some(told: Sequence[str]) -> str:
    return "; ".join(told[:SHOWN]) + (f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else "")
