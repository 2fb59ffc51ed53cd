"""Notifications that go out for real: mail through SMTP, and a webhook."""

from __future__ import annotations

import json
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner
from notify_rig import mailbox, webhook

from rota.cli.main import main
from rota.common.settings import NotifySettings
from rota.master import send
from rota.master.send import Undelivered, deliver

NOTE = {
    "schema": 1,
    "id": "0123-ops-7",
    "number": 7,
    "kind": "takeover",
    "master": "b",
    "subject": "b",
    "text": "a is silent",
    "at": 1_000_000_000.25,
}


def receiver(to: str, **more: Any) -> dict[str, Any]:
    return replace(NotifySettings(), to=(to,), **{"timeout": 2.0, **more}).as_data()


def test_a_mail_says_what_happened_and_its_id_is_the_same_each_time() -> None:
    with mailbox() as box:
        data = replace(NotifySettings(), to=("a@x.org", "b@x.org"), server=box.server, sender="rota@m.org").as_data()
        assert deliver(data, NOTE) == f"sent to 2 by {box.server}"
        deliver(data, NOTE)
        mail, again = box.mails
    assert mail["Subject"] == "rota b: takeover: a is silent" and mail["To"] == "a@x.org, b@x.org"
    assert mail["Message-ID"] == again["Message-ID"] == "<0123-ops-7@m.org>"
    assert mail["Date"].datetime.timestamp() == 1_000_000_000 and mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_content().replace("\r\n", "\n")
    assert text.startswith("a is silent\n") and "number: 7\n" in text and "kind: takeover\n" in text
    assert box.envelopes[0] == ("rota@m.org", ["a@x.org", "b@x.org"])


def test_no_text_becomes_a_header_or_a_second_mail() -> None:
    evil = "x\r\nBcc: spy@x.org\r\n\r\n.\r\nMAIL FROM:<spy@x.org>\x1b[2J"
    with mailbox() as box:
        deliver(receiver("a@x.org", server=box.server), {**NOTE, "master": evil, "text": evil, "subject": evil})
        (mail,) = box.mails
    assert box.envelopes == [("rota@localhost", ["a@x.org"])]
    assert mail["Bcc"] is None and "Bcc: spy@x.org" in mail["Subject"] and "\x1b" not in mail.as_string()


def test_a_long_text_has_a_short_subject_and_other_alphabets_arrive() -> None:
    with mailbox() as box:
        deliver(receiver("a@x.org", server=box.server), {**NOTE, "text": "Knoten Größe " * 50})
        (mail,) = box.mails
    assert len(mail["Subject"]) == send.SUBJECT_MAX and mail["Subject"].endswith("…")
    assert "Knoten Größe " * 10 in " ".join(mail.get_content().split()) + " "


def test_who_is_refused_is_named_and_the_others_are_not_told_twice() -> None:
    with mailbox() as box:
        box.refused = {"b@x.org"}
        both = replace(NotifySettings(), to=("a@x.org", "b@x.org"), server=box.server).as_data()
        assert deliver(both, NOTE) == f"sent to 1 by {box.server}; refused: b@x.org: 550 nobody here"
        with pytest.raises(Undelivered, match="refused all: b@x.org: 550 nobody here"):
            deliver(receiver("b@x.org", server=box.server), NOTE)
    assert len(box.mails) == 1


@pytest.mark.parametrize("reply", ["451 later", "552 too much", ""])
def test_a_mail_that_is_not_taken_is_not_delivered(reply: str) -> None:
    with mailbox() as box:
        box.replies.append(reply)
        with pytest.raises(Undelivered, match=f"{box.server}: {reply or 'Connection unexpectedly closed'}"):
            deliver(receiver("a@x.org", server=box.server), NOTE)
    assert not box.mails


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with mailbox() as box:
        box.silent = True
        with pytest.raises(Undelivered, match="timed out"):
            deliver(receiver("a@x.org", server=box.server, timeout=0.2), NOTE)


def test_mail_over_starttls_checks_the_certificate_and_logs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    with mailbox(context, "open sesame") as box:
        more = {"server": box.server, "security": "starttls", "user": "rota", "password_file": str(password)}
        with pytest.raises(Undelivered, match="certificate verify failed"):
            deliver(receiver("a@x.org", **more), NOTE)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        deliver(receiver("a@x.org", **more), NOTE)
        assert len(box.mails) == 1
        password.write_text("wrong")
        with pytest.raises(Undelivered, match="535 who are you"):
            deliver(receiver("a@x.org", **more), NOTE)
        with pytest.raises(Undelivered, match="No such file"):
            deliver(receiver("a@x.org", **{**more, "password_file": str(tmp_path / "none")}), NOTE)


def test_a_webhook_gets_the_note_with_its_id_and_the_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    with webhook() as hook:
        assert deliver(receiver(hook.url, password_file=str(secret)), NOTE) == f"{hook.url} answered 204"
    assert hook.posts == [NOTE]
    (headers,) = hook.headers
    assert headers["Authorization"] == "Bearer s3cret" and headers["Idempotency-Key"] == NOTE["id"]
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [302, 400, 429, 503])
def test_a_webhook_that_answers_anything_but_success_was_not_told(status: int) -> None:
    with webhook() as hook:
        hook.statuses.append(status)
        with pytest.raises(Undelivered, match=f"answered {status}"):
            deliver(receiver(hook.url), NOTE)


@pytest.mark.parametrize("to", ["http://127.0.0.1:1/", "http://[::1/", "https://127.0.0.1:1/"])
def test_where_nobody_is_nothing_is_delivered(to: str) -> None:
    with pytest.raises(Undelivered) as told:
        deliver(receiver(to), NOTE)
    assert "urlopen" not in str(told.value)
    with pytest.raises(Undelivered, match="Connection refused"):
        deliver(receiver("a@x.org", server="127.0.0.1:1"), NOTE)


# ---- rota notify test ----------------------------------------------------------------------------------------------


def test_notify_test_tells_each_receiver_once_and_says_what_happened(tmp_path: Path) -> None:
    with mailbox() as box, webhook() as hook:
        hook.statuses.append(500)
        path = tmp_path / "rota.toml"
        path.write_text(
            f'[notify.ops]\nto = "a@x.org"\nserver = "{box.server}"\n[notify.chat]\nto = "{hook.url}"\n'
            '[master]\nname = "m1"\n'
        )
        both = CliRunner().invoke(main, ["notify", "test", "-c", str(path)])
        assert (both.exit_code, both.stdout) == (1, f"ops: sent to 1 by {box.server}\n")
        assert both.stderr == f"chat: {hook.url} answered 500 Internal Server Error\n"
        one = CliRunner().invoke(main, ["notify", "test", "chat", "-c", str(path), "--json"])
        assert one.exit_code == 0
        data = json.loads(one.stdout)
        assert data["schema"] == 1 and data["receivers"][0]["delivered"] and len(hook.posts) == len(box.mails) == 1
        assert hook.posts[0]["kind"] == "test" and hook.posts[0]["master"] == "m1"
        assert len({each["id"] for each in hook.attempts}) == 2
        unknown = CliRunner().invoke(main, ["notify", "test", "cat", "-c", str(path)])
        assert unknown.exit_code == 4 and "did you mean chat" in unknown.stderr


def test_notify_test_without_receivers_says_where_they_would_stand() -> None:
    result = CliRunner().invoke(main, ["notify", "test"])
    assert result.exit_code == 4 and "[notify.NAME]" in result.stderr
