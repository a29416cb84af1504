"""One folder or one S3 prefix, with the few operations that the pipeline needs, each atomic.

A key is a path below the root, with `/` between its parts. A write is seen whole or not at all: locally it goes
to `.tmp/` on the same file system and is renamed, on S3 it is one PUT or one completed multipart upload. What
the bytes mean belongs in the formats beside this module.
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
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow import fs

from clay_assets.errors import InputError, StorageError
from clay_assets.transport.access import Access
from clay_assets.transport.locations import is_file_url, is_s3, local_path, split_s3
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying
from clay_assets.transport.s3 import S3Connection

ABANDONED_AFTER = 24 * 3600  # seconds after which a temporary file is the debris of a killed run
TEMPORARY = ".tmp"  # folder of what is being written; never listed
# What S3 servers answer where a condition of a write does not hold.
REFUSED_CONDITIONS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey", "404"}
SUFFIX = 16  # characters of a suffix that a temporary file keeps, for writers that go by it
CHUNK = 1 << 20  # bytes that are hashed at a time
DELETE_BATCH = 1000  # keys per DeleteObjects call, the limit of the S3 API


class Entry(NamedTuple):
    """What a listing tells of a file: bytes, and when it was written, in seconds since 1970."""

    size: int
    modified: float


class Store(ABC):
    """A place for files. Instances can be pickled, so that work can be sent to other processes."""

    @abstractmethod
    def uri(self, key: str = "") -> str:
        """Address of a key as a reader outside would write it: an absolute path or `s3://…`."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """All bytes of a key. Raises FileNotFoundError if there is none."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Put bytes under a key, replacing what is there, at once."""

    @abstractmethod
    def version(self, key: str) -> str | None:
        """What tells the content of a key from any other that it had; None if there is none."""

    @abstractmethod
    def write_over(self, key: str, content: bytes, version: str | None) -> bool:
        """Put bytes under a key unless it has another version than that; returns whether it was done.

        An S3 server that cannot write on a condition is asked for the version just before.
        """

    @abstractmethod
    def writing(self, key: str) -> Any:
        """Context manager giving a local path to fill; it appears under the key if the block ends well."""

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Put bytes under a key if there is nothing yet; False if there is, which then stays."""

    @abstractmethod
    def keep(self, key: str, target: str, digest: str) -> bool:
        """Have what lies under a key under another one too, as it is now; what is written to the key later is not.

        Args:
            key: whose bytes are kept. Raises FileNotFoundError if there is none.
            target: a second key; what is under it is replaced.
            digest: of the bytes (BLAKE2b, 16 bytes, hexadecimal). Other bytes are not kept, and False is returned.
        """

    @abstractmethod
    def digest(self, key: str) -> str:
        """Hash of the bytes of a key (BLAKE2b, 16 bytes, hexadecimal). Raises FileNotFoundError if there is none."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes under a key, None if it does not exist."""

    @abstractmethod
    def entries(self, prefix: str, suffix: str = "") -> dict[str, Entry]:
        """Keys below a folder, in order, with what is told of them. A folder that is not there is empty."""

    def list(self, prefix: str, suffix: str = "") -> dict[str, int]:
        """Keys below a folder, in order, with their sizes in bytes. A folder that is not there is empty."""
        return {key: entry.size for key, entry in self.entries(prefix, suffix).items()}

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Remove keys; one that is already gone is no error."""

    @abstractmethod
    def filesystem(self) -> fs.FileSystem:
        """The same place as a pyarrow file system whose paths are keys, for lazy datasets."""

    @property
    def access(self) -> Access:
        """How files in this place are accessed by readers that know addresses only, such as GDAL."""
        return Access()

    def exists(self, key: str) -> bool:
        """Whether there is something under a key."""
        return self.size(key) is not None


class StoreMark:
    """A small file of random content in a store, by which another machine tells that it reaches the same store.

    Args:
        store: which is marked. Marks can be pickled, as stores can.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.content = store, uuid.uuid4().hex
        self.key = f"{TEMPORARY}/mark-{self.content[:8]}"

    def put(self) -> None:
        """Mark the store."""
        self.store.write(self.key, self.content.encode())

    def check(self) -> None:
        """Check that the mark is there and that something can be written beside it.

        Raises:
            StorageError: names the store.
        """
        try:
            found = self.store.read(self.key)
        except FileNotFoundError:
            found = b""
        if found != self.content.encode():
            raise StorageError(
                f"{self.store.uri()}: is not the storage of the run here. Give every worker access to CLAY_STORAGE "
                "under the same name, such as a file system that all mount, or S3."
            )
        own = f"{self.key}-{uuid.uuid4().hex}"
        self.store.write(own, found)
        self.store.delete([own])

    def remove(self) -> None:
        """Take the mark away."""
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
            flock(lock, LOCK_EX)  # until it is closed, or this process ends
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
                target.parent.mkdir(parents=True, exist_ok=True)  # another run may have emptied and removed it
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
                    os.link(temporary, target)  # which, other than a rename, replaces nothing
                except FileExistsError:
                    return False
                except OSError:  # of a file system without hard links
                    if target.exists():
                        return False
                    os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def keep(self, key: str, target: str, digest: str) -> bool:
        source, kept = self.root / key, self.root / target
        if not source.is_file():
            raise FileNotFoundError(str(source))
        with self._explaining(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary_folder / f"{uuid.uuid4().hex}{kept.suffix[:SUFFIX]}"
            try:
                try:
                    os.link(source, temporary)  # no second copy: a file is replaced whole, never written in place
                except OSError:  # of a file system without hard links
                    shutil.copyfile(source, temporary)
                if _digest_of(temporary) != digest:
                    return False
                os.replace(temporary, kept)
            finally:
                temporary.unlink(missing_ok=True)  # it stays where both are one file already
        return True

    def digest(self, key: str) -> str:
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
                f"cannot write {target}: {error}. Check that CLAY_STORAGE names a folder you may write to, with room."
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
            with suppress(FileNotFoundError):  # deleted meanwhile by another run
                if path.is_file():
                    told = path.stat()
                    found[path.relative_to(self.root).as_posix()] = Entry(told.st_size, told.st_mtime)
        return found

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self.root / key
            path.unlink(missing_ok=True)
            with suppress(OSError):  # folders that are empty now go too, as they do on S3
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
        prefix: prefix below which everything lies; may be empty.
        connection: where S3 is and with which keys; as the AWS SDK finds it by default.
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

        # botocore repeats a request that was refused, but not an answer that breaks off.
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
        # As HTTP writes ETags; then as Ceph compares them, without quotes, where it refused the version that is there.
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

    def keep(self, key: str, target: str, digest: str) -> bool:
        from botocore.exceptions import ClientError

        found, etag = self._digest_of_object(key)
        if found != digest:
            return False
        source = {"Bucket": self.bucket, "Key": self.object_key(key)}
        with self._explaining("write", target):
            try:
                self.client.copy(source, self.bucket, self.object_key(target), ExtraArgs={"CopySourceIfMatch": etag})
            except ClientError as error:
                if error.response["Error"]["Code"] in ("412", "PreconditionFailed"):  # it was replaced meanwhile
                    return False
                raise
        return True

    def digest(self, key: str) -> str:
        return self._digest_of_object(key)[0]

    def _digest_of_object(self, key: str) -> tuple[str, str]:
        """The hash of an object's bytes, and its ETag."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        def read() -> tuple[str, str]:
            answer, digest = self.client.get_object(Bucket=self.bucket, Key=self.object_key(key)), _new_digest()
            for chunk in answer["Body"].iter_chunks(CHUNK):
                digest.update(chunk)
            return digest.hexdigest(), str(answer["ETag"])

        broken_off = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
        with self._explaining("read", key):
            found: tuple[str, str] = retrying(WORK_ATTEMPTS, on=broken_off)(read)
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


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _new_digest).hexdigest()


def open_store(location: str | Path, connection: S3Connection | None = None) -> Store:
    """The store that a location names.

    Args:
        location: a folder, or `s3://bucket/prefix`.
        connection: where S3 is and with which keys, for an S3 location.

    Raises:
        InputError: the location has another scheme, or no bucket.
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
