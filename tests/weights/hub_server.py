"""A small Hub: repositories with commits, and the endpoints that the client asks for."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Repo:
    """Files by commit; the last commit is that of `main`."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        number = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[number] = files
        return number

    @property
    def main(self) -> str:
        return list(self.commits)[-1]


@dataclass
class Hub:
    """What the server knows, what it was asked, and what goes wrong on purpose."""

    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    busy: int = 0
    """So many requests are answered 503."""
    cut_at: int | None = None
    """The next file that is longer breaks off after so many bytes."""
    token: str | None = None
    objects: dict[str, bytes] = field(default_factory=dict)
    endpoint: str = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self._json({"error": code}, status, X_Error_Code=code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _repo(self, name: str) -> Repo | None:
        """Return a repository that may be read, or answer why not."""
        repo = self.hub.repos.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repo is None or (repo.private and not allowed):
            self._error(401 if repo is not None else 404, "RepoNotFound")
            return None
        if repo.gated and not allowed:
            self._error(403, "GatedRepo")
            return None
        return repo

    def _begin(self) -> bool:
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.hub.busy > 0:
            self.hub.busy -= 1
            self._body()
            self._error(503, "Busy")
            return False
        return True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self._begin():
            return
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if (repo := self._repo(match[1])) is not None:
                number = self._number(repo, match[2] or "main")
                if number is not None:
                    about = {"id": match[1], "sha": number, "private": repo.private}
                    self._json(
                        about | {"siblings": [{"rfilename": f} for f in repo.commits[number]]}
                    )
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            if (repo := self._repo(match[1])) is not None:
                files = repo.commits[match[2]]
                self._json([self._entry(name, content) for name, content in files.items()])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if (repo := self._repo(match[1])) is not None:
                number = self._number(repo, match[2])
                if number is not None:
                    self._file(repo.commits[number].get(match[3]), number)
        else:
            self._error(404, "EntryNotFound")

    def _number(self, repo: Repo, revision: str) -> str | None:
        number = repo.main if revision == "main" else revision
        if number not in repo.commits:
            self._error(404, "RevisionNotFound")
            return None
        return number

    @staticmethod
    def _entry(name: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
        entry["oid"] = hashlib.sha1(content).hexdigest()
        if name.endswith(".safetensors"):
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 100}
        return entry

    def _file(self, content: bytes | None, number: str) -> None:
        if content is None:
            self._error(404, "EntryNotFound")
            return
        first = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            first = int(match[1])
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", number)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        rest = content[first:]
        cut = self.hub.cut_at
        if cut is not None and cut < len(rest):
            self.hub.cut_at = None
            self.wfile.write(rest[:cut])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(rest)

    def do_POST(self) -> None:
        if not self._begin():
            return
        path, body = self.path.partition("?")[0], self._body()
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._error(401, "Unauthorized")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            private = bool(asked.get("private", asked.get("visibility") == "private"))
            if name in self.hub.repos:
                self._json({"error": "already there", "url": f"{self.hub.endpoint}/{name}"}, 409)
            else:
                self.hub.repos[name] = Repo({"0" * 40: {}}, private=private)
                self._json({"url": f"{self.hub.endpoint}/{name}"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [
                {
                    "path": each["path"], "shouldIgnore": False,
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                }
                for each in json.loads(body)["files"]
            ]  # fmt: skip
            self._json({"files": files})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": each["oid"], "size": each["size"],
                    "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{each['oid']}"}},
                }
                for each in json.loads(body)["objects"]
            ]  # fmt: skip
            self._json({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(self.hub.repos[match[1]], body)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            self._error(404, "EntryNotFound")

    def do_PUT(self) -> None:
        if self._begin():
            content = self._body()
            self.hub.objects[hashlib.sha256(content).hexdigest()] = content
            self._json({})

    def _commit(self, repo: Repo, body: bytes) -> None:
        import base64

        files = dict(repo.commits[repo.main])
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        number = repo.commit(files)
        self._json(
            {"success": True, "commitOid": number, "commitUrl": f"{self.hub.endpoint}/c/{number}"}
        )


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty Hub on a free port."""
    hub = Hub()
    handler = type("OfThisHub", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
