"""S3: the only client factory, for boto3, pyarrow and GDAL.

A connection sets endpoint, region and keys; the AWS SDK finds whatever is not set (environment, `~/.aws`, instance
role). If no keys are found at all, buckets are read unsigned, which works for public ones. boto3 is imported when a
client is created.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clay_assets.errors import InputError, SourceError
from clay_assets.transport.locations import split_s3, version_of
from clay_assets.transport.retries import ATTEMPTS, CONNECT_TIMEOUT, READ_TIMEOUT, WORK_ATTEMPTS, botocore_options

if TYPE_CHECKING:
    from pyarrow import fs

POOL_SIZE = 32  # connections of a client
CLIENTS_KEPT = 16
REGIONS_KEPT = 1024  # one per bucket
ABSENT = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")
DENIED = ("401", "403", "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch")
AWS = ".amazonaws.com"
GDAL_REGION = "us-east-1"  # GDAL's default
AWS_URL = "https://s3.amazonaws.com"  # GDAL's default, to which it adds region and bucket


@dataclass(frozen=True)
class S3Connection:
    """Endpoint, region and keys of S3. None: as found by the AWS SDK.

    Attributes:
        endpoint: URL of an S3 service other than AWS.
        region: region of the bucket.
        profile: name of a profile in `~/.aws`.
        access_key, secret_key, session_token: keys, if the SDK does not find them.
        unsigned: send no credentials.
        verify: path of a certificate bundle, or False not to check certificates (pyarrow always checks them).
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    unsigned: bool = False
    verify: bool | str | None = None

    def client(self) -> Any:
        """A boto3 S3 client with timeouts, bounded retries and a pool; boto3 clients are safe to share between threads.

        Raises:
            InputError: the profile is unknown, or the endpoint is not a URL.
        """
        return self.opened().client

    def opened(self) -> Opened:
        """The boto3 session and its client.

        Raises:
            InputError: as `client`.
        """
        return _opened(self, sdk_environment())

    def endpoint_url(self) -> str | None:
        """URL of an S3 service other than AWS, from the connection, the SDK's variables or profile; None for AWS."""
        url = str(self.opened().client.meta.endpoint_url)
        return None if AWS in url else url

    def in_region_of(self, bucket: str) -> S3Connection:
        """The same connection in the region of a bucket, which is requested once per process.

        boto3 follows redirects to other regions; pyarrow does not, and GDAL only follows some. The region is kept if
        the server does not send one or does not answer now, or if an endpoint is set with it.
        """
        if self.endpoint and self.region:
            return self
        try:
            with _ASKING:
                region = _region_of(self, sdk_environment(), bucket)
        except SourceError:
            return self
        return replace(self, region=region) if region else self

    def filesystem(self, bucket: str | None = None) -> fs.FileSystem:
        """The same S3 as a pyarrow file system.

        Args:
            bucket: the bucket to read, whose region is used; None: the region of the connection.
        """
        from pyarrow import fs

        if bucket:
            return self.in_region_of(bucket).filesystem()
        opened = self.opened()
        endpoint = self.endpoint_url()
        options: dict[str, Any] = {"endpoint_override": endpoint} if endpoint else {}
        options |= {"retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)}
        options |= {"connect_timeout": CONNECT_TIMEOUT, "request_timeout": READ_TIMEOUT}
        if self.bundle():
            options["tls_ca_file_path"] = self.bundle()
        if opened.anonymous:
            options["anonymous"] = True
        elif self.access_key or self.profile:  # else pyarrow's SDK finds them like boto3
            keys = opened.session.get_credentials().get_frozen_credentials()
            options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
        return fs.S3FileSystem(region=opened.client.meta.region_name, **options)

    def signed_address(self, href: str, seconds: int, requester_pays: bool = False) -> str:
        """Web address of an object, or a version of it, that is valid for some time; unsigned without keys."""
        from botocore.config import Config

        opened = self.opened()
        # boto3's default signature version is not supported by newer regions.
        version = {} if opened.anonymous else {"signature_version": "s3v4"}
        client = opened.session.client(
            "s3",
            endpoint_url=self.endpoint,
            verify=self.verify,
            config=opened.client.meta.config.merge(Config(**version)),
        )
        parameters = {**object_of(href), **payer(requester_pays)}
        return str(client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds))

    def gdal_options(self, bucket: str) -> dict[str, str]:
        """GDAL configuration for `/vsis3/` to read a bucket of the same S3, without keys (see `gdal_session`).

        GDAL's defaults are included: while another file is open, its options apply to all that are not set.
        """
        opened = self.opened()
        endpoint = self.endpoint_url()
        parts = urlsplit(endpoint or AWS_URL)
        region, bundle = opened.session.region_name or GDAL_REGION, self.bundle()
        return {
            "AWS_S3_ENDPOINT": parts.netloc + parts.path.rstrip("/"),
            "AWS_HTTPS": "YES" if parts.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE" if endpoint or "." in bucket else "TRUE",
            "AWS_NO_SIGN_REQUEST": "YES" if opened.anonymous else "NO",
            "AWS_SESSION_TOKEN": "",  # not from the environment: the session sets the token of its keys
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,  # takes precedence in GDAL, even if set in the environment
            **({"GDAL_HTTP_UNSAFESSL": "YES"} if self.verify is False else {}),
            **({"GDAL_CURL_CA_BUNDLE": bundle} if bundle else {}),
        }

    def gdal_session(self) -> Any:
        """A rasterio session with boto3's keys, or unsigned if it has none."""
        from rasterio.session import AWSSession, DummySession

        opened = self.opened()
        return DummySession() if opened.anonymous else AWSSession(opened.session, aws_unsigned=False)

    def bundle(self) -> str | None:
        """Path of boto3's certificate bundle, if set; only boto3 reads the variable."""
        if self.verify is None:
            return os.environ.get("AWS_CA_BUNDLE")
        return self.verify if isinstance(self.verify, str) else None


@dataclass(frozen=True)
class Opened:
    """An open connection; anonymous if boto3 found no keys, or must not use them."""

    session: Any
    client: Any
    anonymous: bool


def sdk_environment() -> tuple[tuple[str, str], ...]:
    """The variables that the AWS SDK reads."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


_ASKING = threading.Lock()


@lru_cache(maxsize=REGIONS_KEPT)
def _region_of(connection: S3Connection, environment: tuple[tuple[str, str], ...], bucket: str) -> str | None:
    """Region of a bucket from the header that S3 sends with every response, even with a refusal; None: not sent.

    Raises:
        SourceError: no response, so the region is still unknown.
    """
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    told: list[str] = []

    def note(parsed_response: Any = None, **_: Any) -> None:
        headers = (parsed_response or {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
        told.extend(filter(None, [headers.get("x-amz-bucket-region")]))

    opened = _opened(connection, environment)
    # A separate client with an event handler: boto3 follows redirects, and only returns the last response.
    attempts = {"retries": {"mode": "standard", "total_max_attempts": WORK_ATTEMPTS}}
    client = opened.session.client(
        "s3",
        endpoint_url=connection.endpoint,
        verify=connection.verify,
        config=opened.client.meta.config.merge(Config(**attempts, connect_timeout=CONNECT_TIMEOUT, read_timeout=10)),
    )
    client.meta.events.register("response-received.s3.HeadBucket", note)
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if not told and status not in (401, 403):
            raise SourceError(f"s3://{bucket}: its region is not known ({error}). Run again.") from error
    except (BotoCoreError, HTTPClientError) as error:
        if not told:
            raise SourceError(f"s3://{bucket}: its region is not known ({error}). Run again.") from error
    return told[0] if told else None


_OPENING = threading.Lock()


def _opened(connection: S3Connection, environment: tuple[tuple[str, str], ...]) -> Opened:
    with _OPENING:  # so that concurrent threads do not each create a client, which takes a second
        return _open(connection, environment)


# Clients are cached per process: creating one takes longer than reading a small file. The SDK's variables are part of
# the key, so that a changed environment gets new clients.
@lru_cache(maxsize=CLIENTS_KEPT)
def _open(connection: S3Connection, environment: tuple[tuple[str, str], ...]) -> Opened:
    from boto3 import Session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = Session(
            aws_access_key_id=connection.access_key,
            aws_secret_access_key=connection.secret_key,
            aws_session_token=connection.session_token,
            region_name=connection.region or _other_region(dict(environment)),
            profile_name=connection.profile,
        )
        anonymous = connection.unsigned or session.get_credentials() is None
        options = botocore_options() | ({"signature_version": UNSIGNED} if anonymous else {})
        client = session.client(
            "s3",
            endpoint_url=connection.endpoint,
            verify=connection.verify,
            config=Config(max_pool_connections=POOL_SIZE, **options),
        )
    except (BotoCoreError, ValueError) as error:
        raise InputError(f"S3: {error}. Check the endpoint, region and profile of the connection.") from error
    return Opened(session, client, anonymous)


def _other_region(environment: dict[str, str]) -> str | None:
    """AWS_REGION, which only boto3 does not read; AWS_DEFAULT_REGION, which it reads, takes precedence."""
    return None if environment.get("AWS_DEFAULT_REGION") else environment.get("AWS_REGION") or None


def object_of(href: str) -> dict[str, str]:
    """Arguments of a boto3 call for the object of an `s3://` address, and for its version if given."""
    bucket, key = split_s3(href)
    version = version_of(href)
    return {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}


def payer(requester_pays: bool) -> dict[str, str]:
    """Arguments of a boto3 call by which the reader's account accepts to be billed."""
    return {"RequestPayer": "requester"} if requester_pays else {}


@contextmanager
def translating_errors(href: str, remedy: str = "Check AWS credentials and requester-pays rights.") -> Iterator[None]:
    """Translate the SDK's errors for an external file or bucket.

    Raises:
        InputError: file not found, or access refused.
        SourceError: it could not be read now.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        if code in ABSENT:
            raise InputError(f"{href}: file not found ({code}). Check the address.") from error
        if code in DENIED or status in DENIED:
            raise InputError(f"{href}: access refused ({code or status}). {remedy}") from error
        raise SourceError(f"{href}: could not be read ({error}). Run again.") from error
    except (BotoCoreError, Boto3Error, HTTPClientError) as error:
        raise SourceError(f"{href}: could not be read ({error}). Run again.") from error


os.register_at_fork(after_in_child=_open.cache_clear)  # the connections of a client belong to the parent
