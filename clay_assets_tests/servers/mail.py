"""A mail server that keeps what it is given: aiosmtpd on 127.0.0.1, with or without TLS and a login."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from clay_assets_tests.servers.daemon import free_port

USER, PASSWORD = "clay", "p@ss/word"
NOBODY = "nobody@example.org"  # an address that the server refuses


class MailServer:
    """What a server took.

    Attributes:
        port: where it listens.
        mails: the messages so far, with their envelopes' recipients.
        logins: user and password of each attempt to log in.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.logins: list[tuple[str, str]] = []

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address == NOBODY:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        mail = message_from_bytes(cast(bytes, envelope.content), policy=policy.default)
        self.mails.append((list(envelope.rcpt_tos), mail))
        return "250 OK"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=self.logins[-1] == (USER, PASSWORD), handled=False)  # the server answers


@contextmanager
def mail_server(certificate: Path | None = None) -> Iterator[MailServer]:
    """A running server; with a certificate it offers STARTTLS, and takes mail only after a login."""
    server = MailServer()
    options: dict[str, Any] = {}
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        options = {"tls_context": context, "auth_required": True, "authenticator": server.authenticate}
    controller = Controller(server, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        server.port = controller.port
        yield server
    finally:
        controller.stop()
