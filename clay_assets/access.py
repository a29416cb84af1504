"""How the files of one source are reached. Words only, so that platforms can be read without a raster library."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

_SIGNED_QUERY = re.compile(r"\?[^\s'\"]*\bsig=[^\s'\",:)]*")


class Signer(Protocol):
    """Turns a stored, unsigned href into one that can be read now."""

    def sign(self, href: str) -> str:
        """The href with a signature that is valid for a while; hrefs of other hosts as they are."""
        ...

    def forget(self, address: str) -> None:
        """Drop the signature of a signed address that was refused; the next `sign` asks for a new one."""
        ...


@dataclass(frozen=True)
class Access:
    """How the files of one source are reached.

    Attributes:
        unsigned: send no AWS credentials (public buckets).
        requester_pays: accept that the reader's account is billed (S3 header `x-amz-request-payer`).
        signer: signs hrefs when they are read; None where that is not needed.
        places: buckets (or hosts) that this holds for, such as `sentinel-cogs`, so that copies in our own storage
            are read as our own; none: for all.
    """

    unsigned: bool = False
    requester_pays: bool = False
    signer: Signer | None = None
    places: tuple[str, ...] = ()

    def holds_for(self, href: str) -> bool:
        """Whether an href lies in one of the places."""
        host = urlsplit(href).netloc
        return not self.places or any(host == place or host.startswith(f"{place}.") for place in self.places)

    def address(self, href: str) -> str:
        """What to ask for now: the href, signed where that is needed."""
        return self.signer.sign(href) if self.signer else href


def reach(ways: Iterable[Access], href: str) -> Access:
    """How one href is reached: the first way that holds for it, else as any other file."""
    return next((way for way in ways if way.holds_for(href)), Access())


def without_signature(text: str) -> str:
    """A text without the signatures of the addresses in it, which no log should hold."""
    return _SIGNED_QUERY.sub("", text)


def fit_to_show(error: BaseException) -> BaseException | None:
    """The error as the cause of another; None where a traceback of it would show a signature."""
    link: BaseException | None = error
    while link is not None:
        if _SIGNED_QUERY.search(str(link)):
            return None
        link = link.__cause__ or link.__context__
    return error


def s3_endpoint() -> str | None:
    """Where S3 is, by the AWS SDK's own variables; None for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
