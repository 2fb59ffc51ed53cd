"""Those whom a master tells: an SMTP server and a webhook, as real as their sockets, that fail when a test says so."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


class _Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Mailbox:
    """`replies`: what the next mails are answered with at the end of their data, in place of 250; "" = hang up."""

    def __init__(self, context: ssl.SSLContext | None = None, password: str = "") -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.attempts = 0
        self.replies: deque[str] = deque()
        self.refused: set[str] = set()  # addresses
        self.silent = False  # says nothing at all, not even hello
        self.context = context
        self.password = password
        self.server = ""


class _Smtp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        box = cast(Any, self.server).box
        box.attempts += 1
        if box.silent:
            self.rfile.read()
            return
        sender, receivers, secure, known = "", [], False, not box.password
        self.say("220 test")
        while line := self.rfile.readline().decode().strip():
            word = line.split(":")[0].upper()
            if word.startswith("EHLO"):
                self.say("250-test", *(["250-STARTTLS"] * (not secure and bool(box.context))), "250 AUTH PLAIN")
            elif word == "STARTTLS":
                self.say("220 go on")
                self.connection = box.context.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb", -1)
                self.wfile = self.connection.makefile("wb", 0)
                secure = True
            elif word.startswith("AUTH PLAIN"):
                known = base64.b64decode(line.split()[2]) == b"\0rota\0" + box.password.encode()
                self.say("235 welcome" if known and (secure or not box.context) else "535 who are you?")
            elif not known:
                self.say("530 say who you are first")
            elif word == "MAIL FROM":
                sender = line.partition("<")[2].partition(">")[0]
                self.say("250 ok")
            elif word == "RCPT TO":
                address = line.partition("<")[2].partition(">")[0]
                self.say("550 nobody here" if address in box.refused else "250 ok")
                receivers += [address] * (address not in box.refused)
            elif word == "DATA":
                self.say("354 go on")
                reply = self.take(sender, receivers)
                if not reply:
                    return
                self.say(reply)
            elif word == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def take(self, sender: str, receivers: list[str]) -> str:
        lines = iter(self.rfile.readline, b".\r\n")
        data = b"".join(line.removeprefix(b".") if line.startswith(b"..") else line for line in lines)
        box = cast(Any, self.server).box
        reply = box.replies.popleft() if box.replies else "250 taken"
        if reply.startswith("250"):
            box.mails.append(cast(EmailMessage, message_from_bytes(data, policy=policy.default)))
            box.envelopes.append((sender, receivers))
        return str(reply)


class Hook:
    """`statuses`: what the next posts are answered with, in place of 204."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []  # those that were answered with 204
        self.attempts: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: deque[int] = deque()
        self.hold: threading.Event | None = None
        self.url = ""


class _Http(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook = cast(Any, self.server).hook
        note = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        hook.attempts.append(note)
        hook.headers.append(dict(self.headers))
        if hook.hold is not None:
            hook.hold.wait(60)
        status = hook.statuses.popleft() if hook.statuses else 204
        if status == 204:
            hook.posts.append(note)
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        raise AssertionError("nobody asks for this")

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def mailbox(context: ssl.SSLContext | None = None, password: str = "") -> Iterator[Mailbox]:
    box = Mailbox(context, password)
    with _Threads(("127.0.0.1", 0), _Smtp) as server:
        cast(Any, server).box = box
        box.server = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield box
        server.shutdown()


@contextmanager
def webhook() -> Iterator[Hook]:
    hook = Hook()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Http) as server:
        server.daemon_threads = True
        cast(Any, server).hook = hook
        hook.url = f"http://127.0.0.1:{server.server_address[1]}/hook?room=1"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield hook
        server.shutdown()
