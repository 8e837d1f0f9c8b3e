"""The e-mail channel: text and HTML, with the picture and its boxes in the message; a shift report with its CSV.

`smtps://` is TLS from the start; `smtp://` turns to TLS (STARTTLS) before anything is said, and sends nothing where the server
does not; `smtp://…?starttls=no` is for a relay inside that has none, and then no password is sent.
"""

import asyncio
import re
import socket
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosmtplib
import msgspec

from eyeline.alerts.channels.base import Pictures, no_picture
from eyeline.core.errors import ChannelError, ConfigError
from eyeline.core.netguard import judged_addresses, networks
from eyeline.core.settings import ChannelSettings, mask
from eyeline.core.telemetry import printable
from eyeline.reports.page import csv_page, html_page
from eyeline.stores.results.base import DeliveryRow

#: Seconds for a whole attempt.
TOTAL = 30.0
_PORTS = {"smtp": 587, "smtps": 465}
_ADDRESS = re.compile(r"[^\s@<>,;:\"\\()\[\]\x00-\x1f\x7f-\x9f]{1,64}@[A-Za-z0-9.-]{1,253}")
_CELL = 'style="padding:2px 16px 2px 0;vertical-align:top"'


class EmailChannel:
    """Sends to `settings.to` from `settings.sender`; `secret` is the password of the user in the URL."""

    def __init__(self, settings: ChannelSettings, pictures: Pictures = no_picture) -> None:
        parts = urlsplit(settings.url)
        query = dict(parse_qsl(parts.query))
        starttls = query.pop("starttls", "required")
        if not parts.hostname or query or starttls not in {"required", "no"}:
            raise ConfigError(
                f"{mask(settings.url)!r} is no mail server; write smtp://user@host:587 or smtps://user@host"
            )
        for address in (*settings.to, settings.sender):
            if not _ADDRESS.fullmatch(address):
                raise ConfigError(
                    f"{printable(address, 80)!r} is no address; `to` and `sender` need such as ops@example.com"
                )
        if not settings.to:
            raise ConfigError('an e-mail channel needs somebody to send to; write to = ["ops@example.com"]')
        networks(settings.allow)
        self._settings = settings
        self._pictures = pictures
        self._host, self._scheme = parts.hostname, parts.scheme
        self._port = parts.port or _PORTS[parts.scheme]
        self._starttls = parts.scheme == "smtp" and starttls == "required"
        self._user = unquote(parts.username) if parts.username else None
        secret = settings.secret.get_secret_value() if settings.secret is not None else None
        self._password = secret or (unquote(parts.password) if parts.password else None)
        if self._user and not self._starttls and parts.scheme == "smtp":
            raise ConfigError(
                f"{mask(settings.url)!r} would send the password unencrypted; leave starttls=no out, or the user"
            )

    async def send(self, delivery: DeliveryRow) -> str:
        """See `Channel.send`."""
        try:
            async with asyncio.timeout(TOTAL):
                return await self._sent(await self._message(delivery))
        except TimeoutError as error:
            raise ChannelError(f"the mail server did not take it within {TOTAL:.0f} s") from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
            said = "; ".join(f"{each.code} {each.message}" for each in refused)
            raise ChannelError(
                f"refused: {printable(said, 300)}", transient=_may_pass(each.code for each in refused)
            ) from error
        except aiosmtplib.SMTPResponseException as error:
            said = printable(f"{error.code} {error.message}", 300)
            raise ChannelError(f"refused: {said}", transient=_may_pass([error.code])) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise ChannelError(f"the mail server was not reached: {printable(str(error), 200)}") from error

    async def close(self) -> None:
        """See `Channel.close`; every attempt has its own connection."""

    async def _sent(self, message: EmailMessage) -> str:
        client = aiosmtplib.SMTP(
            hostname=self._host,
            sock=await self._connected(),
            use_tls=self._scheme == "smtps",
            start_tls=self._starttls,
            username=self._user,
            password=self._password,
            timeout=TOTAL,
        )
        async with client:
            refused, said = await client.send_message(
                message, sender=self._settings.sender, recipients=self._settings.to
            )
        answer = printable(said, 200)
        if refused:  # the others have it: another try would reach them twice
            return f"{answer}; refused for {', '.join(sorted(refused))}"
        return answer

    async def _connected(self) -> socket.socket:
        """A connection to a judged address."""
        loop = asyncio.get_running_loop()
        addresses = await judged_addresses(self._host, self._port, self._scheme, self._settings.allow)
        made = socket.socket(socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            await loop.sock_connect(made, (addresses[0], self._port))
        except BaseException:
            made.close()
            raise
        return made

    async def _message(self, delivery: DeliveryRow) -> EmailMessage:
        told: dict[str, Any] = msgspec.json.decode(delivery.payload)
        message = EmailMessage()
        message["From"] = self._settings.sender
        message["To"] = ", ".join(self._settings.to)
        message["Subject"] = printable(told["text"].splitlines()[0], 200)
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{delivery.id}@{self._settings.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message["X-Eyeline-Type"] = told["type"]
        if told["type"] == "report.shift":
            _fill_report(message, told)
        else:
            await self._fill(message, told)
        return message

    async def _fill(self, message: EmailMessage, told: dict[str, Any]) -> None:
        """Text, the same as HTML, and the picture where there is one."""
        picture = await self._pictures(told["data"].get("result") or {})
        message.set_content(_text(told))
        message.add_alternative(_html(told, shown=picture is not None), subtype="html")
        if picture is not None:
            html: Any = message.get_payload(1)
            html.add_related(picture, "image", "jpeg", cid="<picture>", filename="picture.jpg", disposition="inline")


def _may_pass(codes: Any) -> bool:
    """4xx may be otherwise tomorrow, 5xx not."""
    return any(400 <= code < 500 for code in codes)


def _fields(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What is told of an alert and its result, in lines."""
    alert, result = told["data"].get("alert") or {}, told["data"].get("result") or {}
    hit = alert.get("hit") or {}
    fields = [
        (name.replace("_", " "), alert.get(name)) for name in ("rule", "severity", "site", "opened_at", "count", "id")
    ]
    fields += [(name, value) for name, value in (alert.get("cause") or {}).items()]
    fields += [("label", hit.get("label")), ("score", None if hit.get("score") is None else f"{hit['score']:.2f}")]
    fields += [
        (name, result.get(name)) for name in ("camera", "ref", "reason") if name not in (alert.get("cause") or {})
    ]
    fields += [("codes", ", ".join(code["text"] for code in result.get("codes") or ())), ("result", result.get("id"))]
    return [(name, printable(str(value), 300)) for name, value in fields if value not in (None, "")]


def _text(told: dict[str, Any]) -> str:
    lines = [printable(line) for line in told["text"].splitlines()]
    return "\n".join([*lines, "", *(f"{name}: {value}" for name, value in _fields(told)), ""])


def _html(told: dict[str, Any], *, shown: bool) -> str:
    first, *more = (escape(printable(line)) for line in told["text"].splitlines())
    rows = "".join(
        f"<tr><th {_CELL} align=left>{escape(n)}</th><td {_CELL}>{escape(v)}</td></tr>" for n, v in _fields(told)
    )
    picture = (
        '<p><img src="cid:picture" alt="the picture with what was found" style="max-width:100%"></p>' if shown else ""
    )
    lines = "".join(f"<li>{line}</li>" for line in more)
    listed = f"<ul>{lines}</ul>" if lines else ""
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><body style="font:15px/1.4 sans-serif">'
    return f"{head}<h1 style='font-size:18px'>{first}</h1>{listed}{picture}<table>{rows}</table></body></html>"


def _fill_report(message: EmailMessage, told: dict[str, Any]) -> None:
    report = told["data"]
    message.set_content("\n".join(map(printable, told["text"].splitlines())) + "\n")
    message.add_alternative(html_page(report), subtype="html")
    message.add_attachment(csv_page(report).encode(), "text", "csv", filename="shift.csv")
