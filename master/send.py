"""`python -m rota.master.send`: sends one notification, {"receiver", "note"} as JSON on stdin; exit 0 if it went out.

A note is {schema, id, number, kind, master, subject, text, at}. By mail its id is the Message-ID, for a webhook it
is in the body and in Idempotency-Key: whoever is sent one again, since the connection broke before it was known to have
arrived, can tell.
"""

from __future__ import annotations

import json
import smtplib
import socket
import ssl
import sys
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..common.log import printable
from ..common.settings.notify import STARTTLS, TLS

SUBJECT_MAX = 150
Data = dict[str, Any]


class Undelivered(Exception):
    """With a sentence. It may have arrived all the same, where the connection broke after everything was sent."""


def deliver(receiver: Data, note: Data) -> str:
    """Sends it once, and says what came of it; Undelivered if nothing did. `receiver`: NotifySettings.as_data."""
    try:
        return _mail(receiver, note) if receiver["mail"] else _post(receiver, note)
    except smtplib.SMTPRecipientsRefused as error:
        raise Undelivered(f"{receiver['server']} refused all: {_refusals(error.recipients)}") from None
    except smtplib.SMTPResponseException as error:
        raise Undelivered(f"{receiver['server']}: {error.smtp_code} {_text(error.smtp_error)}") from None
    except (OSError, HTTPException, smtplib.SMTPException, ValueError) as error:
        where = receiver["server"] if receiver["mail"] else receiver["to"][0]
        why = error.reason if isinstance(error, URLError) else error
        raise Undelivered(f"{where}: {why or type(error).__name__}") from None


def _mail(receiver: Data, note: Data) -> str:
    context = ssl.create_default_context()
    host, _, port = receiver["server"].rpartition(":")
    host, name = host.strip("[]"), socket.gethostname()  # not the full name: looking that up may take long
    if receiver["security"] == TLS:
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port), name, timeout=receiver["timeout"], context=context)
    else:
        server = smtplib.SMTP(host, int(port), name, timeout=receiver["timeout"])
    try:
        if receiver["security"] == STARTTLS:
            server.starttls(context=context)
        if receiver["user"]:
            server.login(receiver["user"], secret(receiver["password_file"]))
        refused = server.send_message(message(receiver, note))
    finally:
        _leave(server)
    sent = f"sent to {len(receiver['to']) - len(refused)} by {receiver['server']}"
    return f"{sent}; refused: {_refusals(refused)}" if refused else sent


def message(receiver: Data, note: Data) -> EmailMessage:
    """The mail that says it. Names and texts come over the wire: no line of them becomes a header."""
    text = str(note["text"])
    mail = EmailMessage()
    mail["From"], mail["To"] = receiver["sender"], ", ".join(receiver["to"])
    subject = _line(f"rota {note['master']}: {note['kind']}: {text}")
    mail["Subject"] = subject if len(subject) <= SUBJECT_MAX else subject[: SUBJECT_MAX - 1] + "…"
    mail["Date"] = format_datetime(datetime.fromtimestamp(note["at"], UTC))
    mail["Message-ID"] = f"<{note['id']}@{receiver['sender'].rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's machine answers
    about = {**{key: note[key] for key in ("master", "kind", "subject", "number", "id")}, "at": mail["Date"]}
    facts = "".join(f"{key}: {_line(str(value))}\n" for key, value in about.items())
    mail.set_content(f"{printable(text)}\n\n{facts}")
    return mail


def _leave(server: smtplib.SMTP) -> None:
    """It has said what it will do: whatever becomes of the goodbye, nothing must be sent again."""
    try:
        server.quit()
    except (OSError, smtplib.SMTPException):
        server.close()


class _NoRedirect(HTTPRedirectHandler):
    """urllib would follow a POST with a GET, and the note would be lost as if it were delivered."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _post(receiver: Data, note: Data) -> str:
    (url,) = receiver["to"]
    headers = {"Content-Type": "application/json", "User-Agent": "rota", "Idempotency-Key": note["id"]}
    if receiver["password_file"]:
        headers["Authorization"] = f"Bearer {secret(receiver['password_file'])}"
    request = Request(url, json.dumps(note).encode(), headers, method="POST")
    try:
        with build_opener(_NoRedirect).open(request, timeout=receiver["timeout"]) as answer:
            return f"{_line(url)} answered {answer.status}"
    except HTTPError as error:
        error.close()
        raise Undelivered(f"{url} answered {error.code} {_line(error.reason)}") from None


def secret(path: str) -> str:
    """Raises OSError, or ValueError."""
    text = Path(path).read_text().strip()
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {code} {_text(text)}" for address, (code, text) in refused.items())


def _text(reply: bytes | str) -> str:
    return _line(reply.decode(errors="replace") if isinstance(reply, bytes) else reply)


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def main() -> int:
    order = json.load(sys.stdin)
    try:
        print(deliver(order["receiver"], order["note"]))
    except Undelivered as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
