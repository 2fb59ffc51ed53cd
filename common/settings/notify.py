"""Whom a master tells of what happens to its pair."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from ..declare import Rule, Section, setting
from ..kinds import HOST_PORT, Choice, Duration, File, Kind, Optional, Pattern, Several, Text, quoted

TAKEOVER, RETURN, LIVE, DEAD, CLOSE = "takeover", "return", "live", "dead", "close"
NO_QUORUM, STEP_FAILED, TEST = "no quorum", "step failed", "test"
KINDS = (TAKEOVER, RETURN, LIVE, DEAD, CLOSE, NO_QUORUM, STEP_FAILED)
PLAIN, STARTTLS, TLS = "plain", "starttls", "tls"

# As in an envelope: what a server takes beyond this (quoted parts, non-ASCII) is rare, and a line's end never passes.
_MAIL = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}"
_URL = r"https?://[A-Za-z0-9.:_\[\]-]+(?:/[!-~]*)?"
MAIL = Pattern(_MAIL, "a mail address", "ops@example.com")


class Receivers(Kind):
    """A tuple: mail addresses, or the one URL of a webhook."""

    def read(self, value: object) -> tuple[str, ...]:
        several = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
        if not isinstance(several, list | tuple) or not 1 <= len(several) <= 32:
            raise ValueError(f"must be {self.describe()}, not {quoted(value)}")
        if len(several) == 1 and isinstance(several[0], str) and len(several[0]) <= 2048:
            if re.fullmatch(_URL, several[0], re.ASCII):
                return (several[0],)
        return Several(MAIL, limit=32).read(several)

    def describe(self) -> str:
        return "mail addresses, or one http:// or https:// URL"


@dataclass(init=False, repr=False, eq=False, slots=True)
class NotifySettings(Section):
    """A receiver of notifications: the master tells it of takeovers, each once and in order, by mail or a webhook."""

    section: ClassVar[str] = "notify"
    needs: ClassVar[tuple[str, str]] = ("to", "must say whom to tell: to = …")

    to: tuple[str, ...] | None = setting(
        None,
        Optional(Receivers()),
        "mail addresses, or the URL that is sent a JSON object with POST",
        "a section without it is a mistake: nobody would be notified",
    )
    events: tuple[str, ...] = setting(
        KINDS,
        Several(Choice(KINDS), limit=len(KINDS)),
        "which events are told",
        "all are rare, and each may be the reason for the next",
    )
    server: str = setting(
        "127.0.0.1:25",
        HOST_PORT,
        "HOST:PORT of the SMTP server",
        "many machines have a relay of their own, which keeps mail while the next server is away",
    )
    security: str = setting(
        PLAIN,
        Choice((PLAIN, STARTTLS, TLS)),
        "how to connect to the SMTP server; its certificate is checked",
        "a relay on the same machine has no certificate; starttls is usual on port 587, tls on 465",
    )
    sender: str = setting(
        "rota@localhost",
        MAIL,
        "address from which mail comes",
        "servers on other machines mostly want an address in a domain of theirs",
    )
    user: str | None = setting(
        None,
        Optional(Text(limit=256)),
        "name to log in to the SMTP server with",
        "a relay on the same machine asks for no login",
    )
    password_file: str | None = setting(
        None,
        Optional(File()),
        "file with the password of user, or with the secret of a webhook, sent as Authorization: Bearer …",
        "a file can be kept private; it is read each time, so that it may be changed",
    )
    timeout: float = setting(
        10.0,
        Duration("1s", "5m"),
        "time for one attempt",
        "some mail servers make strangers wait for a few seconds",
    )
    retry_for: float = setting(
        86400.0,
        Duration("0s", "7d"),
        "how long a notification is tried again, first after 1 s, then after 2 s, 4 s … up to a minute",
        "a mail server may be down for a night; a notification that is a day old helps nobody",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "user",
            "password_file",
            lambda s: s.user is not None and s.password_file is None,
            "needs password_file: no server takes a name alone",
        ),
    )

    @property
    def by_mail(self) -> bool:
        return bool(self.to) and "://" not in (self.to or ("",))[0]

    def as_data(self) -> dict[str, Any]:
        """What the program that sends has to know."""
        keys = ("to", "server", "security", "sender", "user", "password_file", "timeout")
        return {"mail": self.by_mail, **{key: getattr(self, key) for key in keys}}
