"""How the files of one source are accessed. Plain data, so that platforms import without rasterio.

Secrets are not included: headers and keys name the environment variables that hold them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from clay_assets.errors import InputError
from clay_assets.transport.locations import host_of, is_http, is_s3, s3_address_of
from clay_assets.transport.s3 import S3Connection

# Signatures of Azure, and of the S3, Google and CloudFront addresses to which hosts with a login redirect.
_SIGNED_QUERY = re.compile(r"\?[^\s'\"]*\b(?:sig|(?:X-(?:Amz|Goog)-)?Signature)=[^\s'\",:)]*", re.IGNORECASE)


class Signer(Protocol):
    """Turns a stored, unsigned href into one that can be read now."""

    def sign(self, href: str) -> str:
        """The href with a signature that is valid for a while; hrefs of other hosts unchanged."""
        ...

    def forget(self, address: str) -> None:
        """Drop the signature of a refused address; the next `sign` requests a new one."""
        ...


@dataclass(frozen=True)
class Header:
    """An HTTP header with a secret value.

    Attributes:
        name: name of the header, such as `Authorization`.
        variable: environment variable that holds the secret.
        prefix: text before the secret, such as `Bearer `.
    """

    name: str
    variable: str
    prefix: str = ""

    def value(self) -> str:
        """The header's value, whose `repr` hides it.

        Raises:
            InputError: the variable is not set, or its value is not valid in a header.
        """
        secret = _variable(self.variable)
        if not (secret.isascii() and secret.isprintable()):
            raise InputError(f"{self.variable}: not one line of plain text. Copy the token again.")
        return Secret(f"{self.prefix}{secret}")


@dataclass(frozen=True)
class Keys:
    """Keys of a bucket, if the AWS SDK does not find them.

    Attributes:
        access_key, secret_key: environment variables that hold the keys.
        session_token: environment variable of the token of temporary keys.
        endpoint, region: location of the bucket; None: from the SDK's variables.
    """

    access_key: str
    secret_key: str
    session_token: str | None = None
    endpoint: str | None = None
    region: str | None = None

    def connection(self) -> S3Connection:
        """The connection with these keys.

        Raises:
            InputError: a variable is not set.
        """
        return S3Connection(
            endpoint=self.endpoint,
            region=self.region,
            access_key=_variable(self.access_key),
            secret_key=_variable(self.secret_key),
            session_token=_variable(self.session_token) if self.session_token else None,
        )


class Secret(str):
    """A string whose `repr` is `***`, since logs of libraries print the `repr` of arguments."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Access:
    """How the files of one source are accessed.

    Attributes:
        unsigned: send no AWS credentials (public buckets).
        requester_pays: accept that the reader's account is billed (S3 header `x-amz-request-payer`).
        signer: signs hrefs when they are read; None if not needed.
        headers: HTTP headers with a secret, such as `bearer("EARTHDATA_TOKEN")`. They are only sent to the host of the
            href, never to another host after a redirect.
        keys: keys of the bucket, if the SDK does not find them.
        connection: S3 connection of our own storage; else None.
        hosts: buckets or hosts that this applies to, such as `sentinel-cogs`, so that copies in our own storage are
            read with the storage's access; empty: all.
    """

    unsigned: bool = False
    requester_pays: bool = False
    signer: Signer | None = None
    headers: tuple[Header, ...] = ()
    keys: Keys | None = None
    connection: S3Connection | None = None
    hosts: tuple[str, ...] = ()

    def applies_to(self, href: str) -> bool:
        """Whether an href is on one of the hosts, or in one of the buckets."""
        if not self.hosts:
            return True
        bucket, _ = s3_address_of(href) or ("", "")
        # The whole name: anybody may own a host whose name has the same beginning.
        return host_of(href) in self.hosts or bucket in self.hosts

    def address(self, href: str) -> str:
        """The address to request: the href, signed if needed."""
        return self.signer.sign(href) if self.signer else href

    def http_headers(self) -> dict[str, str]:
        """The headers for the href's own host.

        Raises:
            InputError: a variable that holds a secret is not set.
        """
        return {header.name: header.value() for header in self.headers}

    def s3(self) -> S3Connection:
        """The S3 connection.

        Raises:
            InputError: a variable that holds a key is not set.
        """
        connection = self.keys.connection() if self.keys else self.connection or S3Connection()
        return replace(connection, unsigned=True) if self.unsigned else connection

    def remedy(self, href: str) -> str:
        """What to do if access is refused, as a sentence."""
        if self.signer is not None:
            return "Check the item's href; the signature was renewed."
        if is_s3(href):
            if self.unsigned:
                return "Check that the bucket is public."
            if self.keys:
                return f"Check the keys in {self.keys.access_key} and {self.keys.secret_key}."
            return "Check AWS credentials and requester-pays rights."
        if self.headers:
            return f"Check the token in {', '.join(header.variable for header in self.headers)}."
        if is_http(href):
            return "Check that the file is public. If its host requires a login, add a token to its access (`bearer`)."
        return "Check the file's permissions."


def bearer(variable: str) -> tuple[Header, ...]:
    """The header for a bearer token in an environment variable, as required by LP DAAC and other Earthdata hosts."""
    return (Header("Authorization", variable, "Bearer "),)


def access_for(ways: Iterable[Access], href: str) -> Access:
    """The first way of access that applies to an href, else plain access."""
    return next((way for way in ways if way.applies_to(href)), Access())


def without_signature(text: str) -> str:
    """Remove the signatures of addresses from a text, so that they are not logged."""
    return _SIGNED_QUERY.sub("", text)


class _WithoutSignatures(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_signature(record.getMessage()), None
        return True


_without_signatures = _WithoutSignatures()


def keep_signatures_out(*loggers: str) -> None:
    """Remove signatures from the logs of libraries, which at DEBUG include every requested address."""
    for name in loggers:
        logging.getLogger(name).addFilter(_without_signatures)


def safe_cause(error: BaseException) -> BaseException | None:
    """The error, or None if its traceback would print a signed URL."""
    link: BaseException | None = error
    while link is not None:
        if _SIGNED_QUERY.search(str(link)):
            return None
        link = link.__cause__ or link.__context__
    return error


def _variable(name: str, environment: Mapping[str, Any] = os.environ) -> str:
    value = str(environment.get(name, "")).strip()
    if not value:
        raise InputError(
            f"{name}: not set, and the source needs it. Set this environment variable to your key or token."
        )
    return value
