"""A web server on this machine that answers as the Hugging Face Hub does, for one data set of files in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from web_servers import Handler, running

COMMIT = "c0ffee" * 6 + "c0de"
TOKEN = "secret-of-the-test"


@contextmanager
def hub(files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve owner/data to those who have the token; yields the address and the paths of the files that were fetched.

    A file with "short" in its name comes incomplete.
    """
    fetched: list[str] = []

    class Answering(Handler):
        def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
            path = self.path.partition("?")[0]
            if not re.match(r"/(api/)?datasets/owner/data(/|$)", path) or self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.send(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}")
            elif found := re.match(r"/datasets/owner/data/resolve/\w+/(.*)", path):
                fetched.append(found[1])
                self.send(200, _known(files[found[1]]), files[found[1]] if "short" not in found[1] else b"{")
            elif found := re.match(r"/api/datasets/owner/data/tree/\w+/?(.*)", path):
                self.listing(found[1], "recursive=true" in self.path.lower())
            elif path.endswith(("/data", "/main", COMMIT)):
                self.send(200, {}, json.dumps({"id": "owner/data", "sha": COMMIT, "siblings": []}).encode())
            else:
                self.send(404, {"X-Error-Code": "RevisionNotFound"}, b"{}")

        def do_HEAD(self) -> None:  # noqa: N802 - http.server calls it so
            name = self.path.split("/", 6)[6]
            self.send_response(200)
            for header, value in {"Content-Length": str(len(files[name])), **_known(files[name])}.items():
                self.send_header(header, value)
            self.end_headers()

        def do_POST(self) -> None:  # noqa: N802 - http.server calls it so
            """Only the paths of files are asked for."""
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["paths"]
            self.send(200, {}, json.dumps([_entry(name, files[name]) for name in asked if name in files]).encode())

        def listing(self, folder: str, recursive: bool) -> None:
            folders = {str(parent): b"" for name in files for parent in PurePosixPath(name).parents if parent.name}
            below = {name: content for name, content in {**folders, **files}.items() if PurePosixPath(folder) in PurePosixPath(name).parents}
            found = [_entry(name, content) for name, content in below.items() if recursive or PurePosixPath(name).parent == PurePosixPath(folder)]
            self.send(200, {}, json.dumps(found).encode()) if found else self.send(404, {"X-Error-Code": "EntryNotFound"}, b"{}")

    with running(Answering) as address:
        yield address, fetched


def _known(content: bytes) -> dict[str, str]:
    return {"ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"', "X-Repo-Commit": COMMIT}


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file" if content else "directory", "path": name, "size": len(content), "oid": "0" * 40}
