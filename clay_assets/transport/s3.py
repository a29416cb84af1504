"""S3: the one client factory, for boto3, pyarrow and GDAL alike.

A connection says where S3 is and with which keys; what it leaves open is the AWS SDK's own business (environment,
`~/.aws`, instance role). A bucket is read unsigned where no keys are found at all, since public buckets refuse
nobody. boto3 is imported when a client is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clay_assets.errors import InputError, SourceError
from clay_assets.transport.retries import ATTEMPTS, CONNECT_TIMEOUT, READ_TIMEOUT, botocore_options

if TYPE_CHECKING:
    from pyarrow import fs

POOL_SIZE = 32  # connections of a client
CLIENTS_KEPT = 16
ABSENT = ("404", "NoSuchKey", "NoSuchBucket", "NotFound")
DENIED = ("401", "403", "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch")
AWS = ".amazonaws.com"
AWS_URL = "https://s3.amazonaws.com"  # as GDAL itself takes it, which adds region and bucket


@dataclass(frozen=True)
class S3Connection:
    """Where S3 is and with which keys. None: as the AWS SDK finds it.

    Attributes:
        endpoint: URL of another S3 than AWS.
        region: of the bucket.
        profile: name of a profile in `~/.aws`.
        access_key, secret_key, session_token: keys, where they do not come from the SDK.
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
        return _opened(self, _sdk_environment()).client

    def endpoint_url(self) -> str | None:
        """URL of another S3 than AWS, by the connection, the SDK's variables or its profile; None for AWS itself."""
        url = str(_opened(self, _sdk_environment()).client.meta.endpoint_url)
        return None if AWS in url else url

    def filesystem(self) -> fs.FileSystem:
        """The same S3 as a pyarrow file system."""
        from pyarrow import fs

        opened = _opened(self, _sdk_environment())
        endpoint = self.endpoint_url()
        options: dict[str, Any] = {"endpoint_override": endpoint} if endpoint else {}
        options |= {"retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)}
        options |= {"connect_timeout": CONNECT_TIMEOUT, "request_timeout": READ_TIMEOUT}
        if self._bundle():
            options["tls_ca_file_path"] = self._bundle()
        if opened.anonymous:
            options["anonymous"] = True
        elif self.access_key or self.profile:  # else the SDK below pyarrow finds them as boto3 does
            keys = opened.session.get_credentials().get_frozen_credentials()
            options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
        return fs.S3FileSystem(region=opened.client.meta.region_name, **options)

    def gdal_options(self, bucket: str) -> dict[str, str]:
        """GDAL configuration by which `/vsis3/` reaches a bucket of the same S3, keys aside (see `gdal_session`).

        Defaults of GDAL are given too: while another file is open, its options hold for what is not given.
        """
        opened = _opened(self, _sdk_environment())
        endpoint = self.endpoint_url()
        parts = urlsplit(endpoint or AWS_URL)
        region, bundle = opened.session.region_name, self._bundle()
        return {
            "AWS_S3_ENDPOINT": parts.netloc + parts.path.rstrip("/"),
            "AWS_HTTPS": "YES" if parts.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE" if endpoint or "." in bucket else "TRUE",
            "AWS_NO_SIGN_REQUEST": "YES" if opened.anonymous else "NO",
            "AWS_SESSION_TOKEN": "",  # not that of the environment; the session brings what belongs to its keys
            **({"AWS_REGION": region} if region else {}),
            **({"GDAL_HTTP_UNSAFESSL": "YES"} if self.verify is False else {}),
            **({"GDAL_CURL_CA_BUNDLE": bundle} if bundle else {}),
        }

    def gdal_session(self) -> Any:
        """A rasterio session with the keys that boto3 uses; one without any where it uses none."""
        from rasterio.session import AWSSession, DummySession

        opened = _opened(self, _sdk_environment())
        return DummySession() if opened.anonymous else AWSSession(opened.session, aws_unsigned=False)

    def _bundle(self) -> str | None:
        """Path of the certificates that boto3 trusts, where it is told of some; it alone reads the variable."""
        if self.verify is None:
            return os.environ.get("AWS_CA_BUNDLE")
        return self.verify if isinstance(self.verify, str) else None


@dataclass(frozen=True)
class _Opened:
    session: Any
    client: Any
    anonymous: bool


def _sdk_environment() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


# Clients are kept per process: making one takes longer than reading a small file. The SDK's variables are part of the
# key, so that a changed environment gets clients of its own.
@lru_cache(maxsize=CLIENTS_KEPT)
def _opened(connection: S3Connection, environment: tuple[tuple[str, str], ...]) -> _Opened:
    from boto3 import Session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = Session(
            aws_access_key_id=connection.access_key,
            aws_secret_access_key=connection.secret_key,
            aws_session_token=connection.session_token,
            region_name=connection.region,
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
    return _Opened(session, client, anonymous)


def payer(requester_pays: bool) -> dict[str, str]:
    """Arguments of a boto3 call by which the reader's account accepts to be billed."""
    return {"RequestPayer": "requester"} if requester_pays else {}


@contextmanager
def translating_errors(href: str, remedy: str = "Check AWS credentials and requester-pays rights.") -> Iterator[None]:
    """Raise what an error of the SDK means for a file or bucket that is not ours.

    Raises:
        InputError: it is absent or forbidden.
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
