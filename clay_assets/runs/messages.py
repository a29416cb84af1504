"""Send a short message by e-mail, or to a webhook that accepts Slack's format.

Webhook: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from __future__ import annotations

import html
import logging
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import unquote, urlsplit

from clay_assets.settings import Settings

SECONDS = 10  # timeout for connecting and for reading
SHOWN = 200  # characters of a server's answer
_secret_path: ContextVar[str] = ContextVar("path of the webhook that is being asked", default="")


def _names_no_webhook(record: logging.LogRecord) -> bool:
    path = _secret_path.get()
    return not path or path not in record.getMessage()


logging.getLogger("urllib3.connectionpool").addFilter(_names_no_webhook)  # at DEBUG it logs every path


class NotSentError(Exception):
    """A message was not sent. The text contains no secrets."""


@dataclass(frozen=True)
class Message:
    """A message: a title, and the lines below it."""

    title: str
    lines: tuple[str, ...]


class Channel(Protocol):
    """A destination of messages."""

    @property
    def name(self) -> str:
        """The setting that configures it."""

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            NotSentError: it was not sent.
        """


def channels_of(settings: Settings) -> Iterator[Channel]:
    """The channels configured in the settings."""
    if settings.alert_webhook is not None:
        yield Webhook(settings.alert_webhook.get_secret_value())
    if settings.alert_email is not None:
        sender = settings.alert_from or f"clay_assets@{socket.getfqdn()}"
        yield Email(settings.alert_email, sender, settings.alert_smtp.get_secret_value())


@dataclass(frozen=True, repr=False)
class Webhook:
    """A webhook that accepts `{"text": …}`, such as Slack's or Mattermost's. Its URL is a secret."""

    url: str
    name: str = "CLAY_ALERT_WEBHOOK"

    def send(self, message: Message) -> None:
        """Post a message."""
        import requests  # here, as importing it opens a socket, and definitions must load without

        # Slack interprets &, < and > as markup: an error's text must not notify a whole channel.
        text = html.escape("\n".join([f"*{message.title}*", *message.lines]), quote=False)
        try:
            _secret_path.set(urlsplit(self.url).path or "/")
            answer = requests.post(self.url, json={"text": text}, timeout=SECONDS, allow_redirects=False)
        except (requests.RequestException, ValueError) as error:  # their texts contain the URL
            raise NotSentError(f"no answer ({type(error).__name__}). Check its address and the network.") from None
        finally:
            _secret_path.set("")
        if not 200 <= answer.status_code < 300:
            said = " ".join(answer.text[:SHOWN].split())
            raise NotSentError(f"it answered {answer.status_code} ({said or answer.reason}). Check its address.")


@dataclass(frozen=True, repr=False)
class Email:
    """An e-mail to one address, or several separated by commas.

    Args:
        to, sender: addresses.
        server: `smtp://host:port` within a private network, `smtp://user:password@host:port` (with STARTTLS) or
            `smtps://user:password@host:port` (TLS from the start).
    """

    to: str
    sender: str
    server: str
    name: str = "CLAY_ALERT_EMAIL"

    def send(self, message: Message) -> None:
        """Hand a message to the server."""
        try:
            refused = self._hand_over(self._mail(message))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            said = " ".join(str(error).split())[:SHOWN]
            raise NotSentError(f"not sent ({type(error).__name__}: {said}). Check CLAY_ALERT_SMTP.") from None
        if refused:
            raise NotSentError(f"the server refused {', '.join(refused)}. Check the addresses.")

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = f"clay_assets: {message.title}"
        mail["From"] = self.sender
        mail["To"] = self.to
        mail.set_content("\n".join([message.title, "", *message.lines, ""]))
        return mail

    def _hand_over(self, mail: EmailMessage) -> list[str]:
        """Send an e-mail; returns the addresses that the server refused."""
        server = urlsplit(self.server)
        if server.scheme not in ("smtp", "smtps") or not server.hostname:
            raise ValueError("an address such as smtp://mail.example.org:587 is expected")
        if server.scheme == "smtps":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                server.hostname, server.port or 465, timeout=SECONDS, context=ssl.create_default_context()
            )
        else:
            client = smtplib.SMTP(server.hostname, server.port or (587 if server.username else 25), timeout=SECONDS)
        with client:
            if server.username:
                if server.scheme == "smtp":  # a password is never sent in the clear
                    client.starttls(context=ssl.create_default_context())
                client.login(unquote(server.username), unquote(server.password or ""))
            return list(client.send_message(mail))
