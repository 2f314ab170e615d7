"""Who listens to what n8n sends: a web address, Slack, and a mail server, on this machine."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import ssl
import subprocess
import threading
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab import wait_until

Object = dict[str, Any]


class Quiet(BaseHTTPRequestHandler):
    def body(self) -> Object:
        found: Object = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""


class Listener:
    """Keeps the JSON that is sent to it."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.messages: list[Object] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    def message(self, words: str, seconds: float = 300) -> Object:
        """The first message that holds these words, when it has come."""
        found: Object = wait_until(lambda: next((one for one in self.messages if words in json.dumps(one)), None), seconds)
        return found

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Sink(Listener):
    """A web address that takes everything."""

    def __init__(self) -> None:
        sink = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                sink.messages.append(self.body())
                self.send_response(204)
                self.end_headers()

        super().__init__(Handler)


class Slack(Listener):
    """Slack, for those who ask for web addresses by this proxy and trust its certificate: n8n has no setting for another address of Slack."""

    def __init__(self, folder: Path) -> None:
        slack = self
        self.certificate, key = folder / "certificate.pem", folder / "key.pem"
        words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=slack.com", "-addext", "subjectAltName=DNS:slack.com"]
        subprocess.run(["openssl", "req", *words, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, key)

        class Api(Quiet):
            def do_POST(self) -> None:
                slack.messages.append(self.body() | {"path": self.path, "authorization": self.headers["Authorization"]})
                answer = b'{"ok": true, "channel": "C1", "ts": "1", "message": {}}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        class Proxy(Quiet):
            def do_CONNECT(self) -> None:
                self.send_response(200 if self.path == "slack.com:443" else 403)
                self.end_headers()
                if self.path == "slack.com:443":
                    with context.wrap_socket(self.connection, server_side=True) as connection:
                        Api(connection, self.client_address, self.server)

        super().__init__(Proxy)

    @property
    def environment(self) -> dict[str, str]:
        return {"HTTPS_PROXY": self.address, "NODE_EXTRA_CA_CERTS": str(self.certificate)}


class Mailbox:
    """A mail server that keeps the letters that it is given (RFC 5321, as much of it as one client needs)."""

    def __init__(self) -> None:
        mailbox = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.answer(220)
                for line in self.rfile:
                    verb = line[:4].upper()
                    if verb == b"DATA":
                        self.answer(354)
                        letter = b"".join(iter(self.rfile.readline, b".\r\n"))
                        mailbox.letters.append(email.message_from_bytes(letter, policy=email.policy.default))
                    self.answer(221 if verb == b"QUIT" else 250)

            def answer(self, code: int) -> None:
                self.wfile.write(f"{code} so be it\r\n".encode())

        self.letters: list[EmailMessage] = []
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        found: int = self.server.server_address[1]
        return found

    def letter(self, subject: str) -> EmailMessage:
        """The first letter of that subject, when it has come."""
        found: EmailMessage = wait_until(lambda: next((one for one in self.letters if one["Subject"] == subject), None), 300)
        return found

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()
