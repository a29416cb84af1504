"""Check that the storage can be used, with a small object that is written and deleted again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clay_assets.errors import InputError
from clay_assets.runs.doctor.lines import Line
from clay_assets.settings import Settings
from clay_assets.storage.stores import TEMPORARY, LocalStore, S3Store, Store, open_store

PROBE = "doctor-"  # prefix of the folder of the probe object
CONTENT = b"written by clay-assets doctor; may be deleted\n"


def check_storage(settings: Settings) -> Iterator[Line]:
    """Write, read, list and delete an object."""
    try:
        store = open_store(settings.storage)
    except InputError as error:
        raise InputError(f"CLAY_STORAGE: {error}") from error
    if isinstance(store, S3Store) and store.connection.opened().anonymous:
        remedy = "Set AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role."
        yield Line("failed", "storage", f"{store.uri()}: AWS credentials not found", remedy)
        return
    with _probe(store) as key:
        if store.read(key) != CONTENT or key not in store.list(key.partition("/")[0]):
            yield Line("failed", "storage", f"{store.uri()}: returns other data than was written", "Check the storage.")
            return
    if store.exists(key):
        yield Line("failed", "storage", f"{store.uri(key)}: still listed after it was deleted", "Delete it.")
        return
    yield Line("ok", "storage", f"{store.uri()}: written, read, listed and deleted")


@contextmanager
def _probe(store: Store) -> Iterator[str]:
    """Key of a small temporary object."""
    key = f"{PROBE}{uuid.uuid4().hex}/probe.txt"
    store.write(key, CONTENT)
    try:
        yield key
    finally:
        store.delete([key])


@contextmanager
def without_new_folders(location: str) -> Iterator[None]:
    """Remove the folders that checks create in a local storage, once all of them have ended."""
    made: list[Path] = []
    with suppress(InputError):  # the check of the storage names an invalid location
        store = open_store(location)
        folders = [store.root / TEMPORARY, store.root, *store.root.parents] if isinstance(store, LocalStore) else []
        made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
