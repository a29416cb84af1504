"""A folder or an S3 prefix, with the few atomic operations that the pipeline needs.

A key is a path below the root, with `/` between its parts. Writes are all or nothing: locally a file is written to
`.tmp/` on the same file system and renamed, on S3 it is one PUT or one completed multipart upload. Formats are handled
by the other modules of this package.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import fs

from clay_assets.errors import InputError, StorageError
from clay_assets.transport.access import Access
from clay_assets.transport.locations import is_file_url, is_s3, local_path, split_s3
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying
from clay_assets.transport.s3 import S3Connection

ABANDONED_AFTER = 24 * 3600  # seconds after which a temporary file is considered left over from a killed run
TEMPORARY = ".tmp"  # folder of files being written; never listed
# Answers of S3 servers to a write whose condition does not hold.
REFUSED_CONDITIONS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey", "404"}
SUFFIX = 16  # characters of the suffix that a temporary file keeps, for writers that depend on it
CHUNK = 1 << 20  # bytes hashed at a time
DELETE_BATCH = 1000  # keys per DeleteObjects call, the limit of the S3 API


class Entry(NamedTuple):
    """Entry of a listing: size in bytes, and time of writing in seconds since 1970."""

    size: int
    modified: float


class Digest(NamedTuple):
    """Hashes of a file's bytes, hexadecimal.

    Attributes:
        blake2b: of 16 bytes (`b2sum -l 128`), as manifests and names of files have it.
        sha256: as `sha256sum` has it.
    """

    blake2b: str
    sha256: str


class Store(ABC):
    """A place for files. Instances can be pickled, so that work can be sent to other processes."""

    @abstractmethod
    def uri(self, key: str = "") -> str:
        """Address of a key for external readers: an absolute path or `s3://…`."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """All bytes of a key. Raises FileNotFoundError if there is none."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Write bytes to a key, replacing existing content atomically."""

    @abstractmethod
    def version(self, key: str) -> str | None:
        """Identifies the current content of a key; None if it does not exist."""

    @abstractmethod
    def write_over(self, key: str, content: bytes, version: str | None) -> bool:
        """Write bytes to a key if it still has this version; returns whether they were written.

        If an S3 server does not support conditional writes, the version is checked just before.
        """

    @abstractmethod
    def writing(self, key: str) -> Any:
        """Context manager that yields a local path to write; stored under the key if the block succeeds."""

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Write bytes to a key unless it exists; returns whether they were written."""

    @abstractmethod
    def keep(self, key: str, target: str, blake2b: str) -> Digest | None:
        """Keep the current content of a key under another key, unaffected by later writes.

        Args:
            key: the key to keep. Raises FileNotFoundError if it does not exist.
            target: the second key, which is replaced.
            blake2b: expected hash of the bytes (see `Digest`). If it differs, nothing is kept, and None is returned.
        """

    @abstractmethod
    def digest(self, key: str) -> Digest:
        """Hashes of the bytes of a key. Raises FileNotFoundError if it is missing."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Size of a key in bytes, None if it does not exist."""

    @abstractmethod
    def entries(self, prefix: str, suffix: str = "") -> dict[str, Entry]:
        """Keys below a folder, in order, with size and time. A missing folder is empty."""

    def list(self, prefix: str, suffix: str = "") -> dict[str, int]:
        """Keys below a folder, in order, with their sizes in bytes. A missing folder is empty."""
        return {key: entry.size for key, entry in self.entries(prefix, suffix).items()}

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys; missing ones are ignored."""

    @abstractmethod
    def filesystem(self) -> fs.FileSystem:
        """The same place as a pyarrow file system whose paths are keys, for lazy datasets."""

    @property
    def access(self) -> Access:
        """Access to files of this store for readers that take addresses, such as GDAL."""
        return Access()

    def exists(self, key: str) -> bool:
        """Whether a key exists."""
        return self.size(key) is not None


class StoreMark:
    """A small random file in a store, with which another machine verifies that it uses the same store.

    Args:
        store: the store to mark. Marks can be pickled, like stores.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.content = store, uuid.uuid4().hex
        self.key = f"{TEMPORARY}/mark-{self.content[:8]}"

    def put(self) -> None:
        """Mark the store."""
        self.store.write(self.key, self.content.encode())

    def check(self) -> None:
        """Check that the mark exists and that the store can be written.

        Raises:
            StorageError: names the store.
        """
        try:
            found = self.store.read(self.key)
        except FileNotFoundError:
            found = b""
        if found != self.content.encode():
            raise StorageError(
                f"{self.store.uri()}: not the storage of the run on this worker. Give every worker access to "
                "CLAY_STORAGE under the same name, such as S3, or a file system that all mount."
            )
        own = f"{self.key}-{uuid.uuid4().hex}"
        self.store.write(own, found)
        self.store.delete([own])

    def remove(self) -> None:
        """Remove the mark."""
        self.store.delete([self.key])


class LocalStore(Store):
    """A folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def uri(self, key: str = "") -> str:
        return str(self.root / key) if key else str(self.root)

    def read(self, key: str) -> bytes:
        path = self.root / key
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}. Check CLAY_STORAGE and its rights.") from error

    def write(self, key: str, content: bytes) -> None:
        with self.writing(key) as path, self._explaining(self.root / key):
            path.write_bytes(content)

    def version(self, key: str) -> str | None:
        try:
            return hashlib.blake2b(self.read(key), digest_size=16).hexdigest()
        except FileNotFoundError:
            return None

    def write_over(self, key: str, content: bytes, version: str | None) -> bool:
        with self._explaining(self.root / key), (self._temporary_folder / "lock").open("wb") as lock:
            flock(lock, LOCK_EX)  # until the file is closed or the process ends
            if self.version(key) != version:
                return False
            self.write(key, content)
            return True

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        target = self.root / key
        with self._explaining(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary_folder / f"{uuid.uuid4().hex}{target.suffix[:SUFFIX]}"  # names may be long
            temporary.touch()
        try:
            yield temporary
            with self._explaining(target):
                target.parent.mkdir(parents=True, exist_ok=True)  # another run may have removed the empty folder
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def create(self, key: str, content: bytes) -> bool:
        target = self.root / key
        with self._explaining(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary_folder / uuid.uuid4().hex
            try:
                temporary.write_bytes(content)
                try:
                    os.link(temporary, target)  # unlike a rename, does not replace a file
                except FileExistsError:
                    return False
                except OSError:  # of a file system without hard links
                    if target.exists():
                        return False
                    os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def keep(self, key: str, target: str, blake2b: str) -> Digest | None:
        source, kept = self.root / key, self.root / target
        if not source.is_file():
            raise FileNotFoundError(str(source))
        with self._explaining(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary_folder / f"{uuid.uuid4().hex}{kept.suffix[:SUFFIX]}"
            try:
                try:
                    os.link(source, temporary)  # without copying: files are replaced as a whole, never written in place
                except OSError:  # of a file system without hard links
                    shutil.copyfile(source, temporary)
                found = _digest_of(temporary)
                if found.blake2b != blake2b:
                    return None
                os.replace(temporary, kept)
            finally:
                temporary.unlink(missing_ok=True)  # still exists if both were already the same file
        return found

    def digest(self, key: str) -> Digest:
        path = self.root / key
        try:
            return _digest_of(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}. Check CLAY_STORAGE and its rights.") from error

    @contextmanager
    def _explaining(self, target: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot write {target}: {error}. Check that CLAY_STORAGE is a writable folder with space left."
            ) from error

    def size(self, key: str) -> int | None:
        try:
            return (self.root / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, prefix: str, suffix: str = "") -> dict[str, Entry]:
        found = {}
        for path in sorted((self.root / prefix).rglob(f"*{suffix}")):
            if TEMPORARY in path.relative_to(self.root).parts:
                continue
            with suppress(FileNotFoundError):  # deleted by another run
                if path.is_file():
                    told = path.stat()
                    found[path.relative_to(self.root).as_posix()] = Entry(told.st_size, told.st_mtime)
        return found

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self.root / key
            path.unlink(missing_ok=True)
            with suppress(OSError):  # remove empty folders too, as on S3
                for folder in path.parents:
                    if folder in (self.root, self.root / TEMPORARY):
                        break
                    folder.rmdir()

    def filesystem(self) -> fs.FileSystem:
        return fs.SubTreeFileSystem(str(self.root), fs.LocalFileSystem())

    @cached_property
    def _temporary_folder(self) -> Path:
        folder = self.root / TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                    path.unlink()
        return folder


class S3Store(Store):
    """A prefix of an S3 bucket.

    Args:
        bucket: name of the bucket, which must exist.
        prefix: prefix of all keys; may be empty.
        connection: S3 connection; by default as found by the AWS SDK.
    """

    def __init__(self, bucket: str, prefix: str, connection: S3Connection | None = None) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.connection = connection or S3Connection()

    @property
    def client(self) -> Any:
        """The boto3 client."""
        return self.connection.client()

    @property
    def access(self) -> Access:
        return Access(connection=self.connection, hosts=(self.bucket,))

    def uri(self, key: str = "") -> str:
        return f"s3://{self.bucket}/{self.object_key(key)}".rstrip("/")

    def object_key(self, key: str) -> str:
        """Name of a key in the bucket."""
        return f"{self.prefix}/{key}".strip("/") if self.prefix else key

    def read(self, key: str) -> bytes:
        with self._explaining("read", key):
            return self._whole_object(self.object_key(key))

    def _whole_object(self, name: str) -> bytes:
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        def read() -> bytes:
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
            return body

        # botocore retries refused requests, but not truncated responses.
        broken_off = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
        content: bytes = retrying(WORK_ATTEMPTS, on=broken_off)(read)
        return content

    def write(self, key: str, content: bytes) -> None:
        with self._explaining("write", key):
            self.client.put_object(Bucket=self.bucket, Key=self.object_key(key), Body=content)

    def version(self, key: str) -> str | None:
        try:
            with self._explaining("read", key):
                return str(self.client.head_object(Bucket=self.bucket, Key=self.object_key(key))["ETag"])
        except FileNotFoundError:
            return None

    def write_over(self, key: str, content: bytes, version: str | None) -> bool:
        from botocore.exceptions import ClientError

        target = {"Bucket": self.bucket, "Key": self.object_key(key), "Body": content}
        # ETags as in HTTP; then without quotes, for Ceph, if the current version was refused.
        conditions = (
            [{"IfNoneMatch": "*"}] if version is None else [{"IfMatch": tag} for tag in (version, version.strip('"'))]
        )
        with self._explaining("write", key):
            for condition in conditions:
                try:
                    self.client.put_object(**target, **condition)
                    return True
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    conditional = code not in ("NotImplemented", "501")
                    if conditional and code not in REFUSED_CONDITIONS:
                        raise
                if self.version(key) != version:
                    return False
                if not conditional:
                    self.client.put_object(**target)
                    return True
        return False

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="clay-") as folder:
            path = Path(folder) / f"file{Path(key).suffix[:SUFFIX]}"  # names may be long
            yield path
            with self._explaining("write", key):
                self.client.upload_file(str(path), self.bucket, self.object_key(key))

    def create(self, key: str, content: bytes) -> bool:
        from botocore.exceptions import ClientError

        with self._explaining("write", key):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self.object_key(key), Body=content, IfNoneMatch="*")
            except ClientError as error:
                if error.response["Error"]["Code"] in ("412", "PreconditionFailed"):
                    return False
                raise
        return True

    def keep(self, key: str, target: str, blake2b: str) -> Digest | None:
        from botocore.exceptions import ClientError

        found, etag = self._digest_of_object(key)
        if found.blake2b != blake2b:
            return None
        source = {"Bucket": self.bucket, "Key": self.object_key(key)}
        with self._explaining("write", target):
            try:
                self.client.copy(source, self.bucket, self.object_key(target), ExtraArgs={"CopySourceIfMatch": etag})
            except ClientError as error:
                if error.response["Error"]["Code"] in ("412", "PreconditionFailed"):  # replaced meanwhile
                    return None
                raise
        return found

    def digest(self, key: str) -> Digest:
        return self._digest_of_object(key)[0]

    def _digest_of_object(self, key: str) -> tuple[Digest, str]:
        """The hashes of an object's bytes, and its ETag."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        def read() -> tuple[Digest, str]:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.object_key(key))
            return _digest_of_chunks(answer["Body"].iter_chunks(CHUNK)), str(answer["ETag"])

        broken_off = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
        with self._explaining("read", key):
            found: tuple[Digest, str] = retrying(WORK_ATTEMPTS, on=broken_off)(read)
        return found

    def size(self, key: str) -> int | None:
        try:
            with self._explaining("read", key):
                return int(self.client.head_object(Bucket=self.bucket, Key=self.object_key(key))["ContentLength"])
        except FileNotFoundError:
            return None

    def entries(self, prefix: str, suffix: str = "") -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        strip = len(self.prefix) + 1 if self.prefix else 0
        folder = self.object_key(prefix).rstrip("/")
        with self._explaining("list", prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{folder}/" if folder else ""
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    if entry["Key"].endswith(suffix):
                        modified = entry["LastModified"].timestamp()
                        found[entry["Key"][strip:]] = Entry(int(entry["Size"]), modified)
        return dict(sorted(found.items()))

    def delete(self, keys: Iterable[str]) -> None:
        listed = list(keys)
        for start in range(0, len(listed), DELETE_BATCH):
            batch = listed[start : start + DELETE_BATCH]
            names = [{"Key": self.object_key(key)} for key in batch]
            with self._explaining("delete", batch[0]):
                answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": names, "Quiet": True})
            for refused in answer.get("Errors", []):  # the call itself succeeds
                raise StorageError(
                    f"cannot delete s3://{self.bucket}/{refused['Key']}: {refused.get('Code')} "
                    f"{refused.get('Message', '')}. Check AWS credentials and rights."
                )

    def filesystem(self) -> fs.FileSystem:
        return fs.SubTreeFileSystem(f"{self.bucket}/{self.prefix}".rstrip("/"), self.connection.filesystem(self.bucket))

    @contextmanager
    def _explaining(self, verb: str, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                raise FileNotFoundError(self.uri(key)) from error
            raise StorageError(
                f"cannot {verb} {self.uri(key)}: {error}. Check the bucket's name, AWS credentials and rights."
            ) from error
        except (BotoCoreError, Boto3Error, HTTPClientError) as error:
            raise StorageError(
                f"cannot {verb} {self.uri(key)}: {error}. Check the endpoint (AWS_ENDPOINT_URL, or that of the S3 "
                "resource), credentials and the network."
            ) from error


def _digest_of(path: Path) -> Digest:
    with path.open("rb") as file:
        return _digest_of_chunks(iter(partial(file.read, CHUNK), b""))


def _digest_of_chunks(chunks: Iterable[bytes]) -> Digest:
    blake2b, sha256 = hashlib.blake2b(digest_size=16), hashlib.sha256()
    for chunk in chunks:
        blake2b.update(chunk)
        sha256.update(chunk)
    return Digest(blake2b.hexdigest(), sha256.hexdigest())


def open_store(location: str | Path, connection: S3Connection | None = None) -> Store:
    """Open the store at a location.

    Args:
        location: a folder, or `s3://bucket/prefix`.
        connection: S3 connection, for an S3 location.

    Raises:
        InputError: unsupported scheme, or no bucket.
    """
    text = str(location)
    if is_s3(text):
        bucket, prefix = split_s3(text)
        if not bucket:
            raise InputError(f"{text!r}: no bucket in the location. Write s3://bucket/prefix.")
        return S3Store(bucket, prefix, connection)
    if "://" in text and not is_file_url(text):
        raise InputError(f"unsupported location {text!r}. Use a folder or s3://bucket/prefix.")
    return LocalStore(local_path(text))
