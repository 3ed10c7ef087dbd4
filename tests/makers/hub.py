"""A stand-in of the Hugging Face hub on this machine, for huggingface_hub and datasets.

It keeps models and datasets in memory, with their commits: create_repo, upload_folder,
create_commit, repo_info, list_repo_tree, hf_hub_download, snapshot_download and the file system
`hf://` work against it. Repositories whose owner is "private" need the token `TOKEN`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_tokenoftests"
WRITES = ("preupload", "commit", "tag", "branch")
LARGE = (".parquet", ".safetensors", ".arrow")  # files that are uploaded before the commit
DATE = "2026-01-01T00:00:00.000Z"
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits, oldest first, and branches and tags by name."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str) -> str:
        content = "".join(f"{name} {_hash(data)}\n" for name, data in sorted(files.items()))
        oid = hashlib.sha1(f"{len(self.commits)} {content}".encode()).hexdigest()
        self.commits[oid] = files
        self.refs[branch] = oid
        return oid

    def find(self, revision: str) -> str | None:
        """Return the hash of a commit, branch or tag, None if there is none."""
        oid = self.refs.get(revision, revision)
        return oid if oid in self.commits else None


class LocalHub:
    """A running hub.

    Attributes:
        url: for HF_ENDPOINT.
        repositories: by "models/owner/name" or "datasets/owner/name".
        requests: method and path of every request.
        uploads: large files by SHA-256.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.uploads: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, kind: str, name: str, folder: Path, *, tag: str | None = None) -> str:
        """Add a folder as a commit of a repository, and return the commit's hash.

        Args:
            kind: "models" or "datasets".
            name: "owner/name".
            tag: for the commit.
        """
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        repository = self.repositories.setdefault(f"{kind}/{name}", Repository())
        oid = repository.commit(files, "main")
        if tag is not None:
            repository.refs[tag] = oid
        return oid

    def files(self, kind: str, name: str, revision: str = "main") -> Files:
        """Return the files of a repository."""
        repository = self.repositories[f"{kind}/{name}"]
        oid = repository.find(revision)
        assert oid is not None
        return repository.commits[oid]


def environment(hub: LocalHub, home: Path) -> dict[str, str]:
    """Return variables that make a new process use the hub, with an empty cache in `home`."""
    off = {name: "0" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")}
    named = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    return {**named, **off, "HF_HUB_DISABLE_XET": "1"}


@contextmanager
def local_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """Run a hub that this process and new processes use, with an empty cache in `home`."""
    import datasets.config
    import huggingface_hub.constants as constants
    import huggingface_hub.hf_api
    from huggingface_hub import HfFileSystem

    hub = LocalHub()
    for name, value in environment(hub, home).items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    cache = home / "hub"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    HfFileSystem.clear_instance_cache()
    try:
        yield hub
    finally:
        hub.close()
        HfFileSystem.clear_instance_cache()


_NAME = r"(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
_API = re.compile(rf"/api/{_NAME}(/(?P<verb>[a-z-]+)(/(?P<revision>[^/]+)(/(?P<path>.*))?)?)?")
_RESOLVE = re.compile(
    r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        self.hub.requests.append(f"{method} {url.path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._read_chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if url.path == "/api/repos/create":
            self._create(json.loads(body))
        elif url.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif url.path == "/api/whoami-v2":
            self._json({"name": "me", "type": "user", "orgs": [], "auth": {}})
        elif found := re.fullmatch(r"/(datasets/)?(.+)\.git/info/lfs/objects/batch", url.path):
            if self._may("write", found[2]):
                self._offer_uploads(json.loads(body)["objects"])
        elif method == "PUT" and url.path.startswith("/upload/"):
            self.hub.uploads[url.path.removeprefix("/upload/")] = body
            self._json({})
        elif found := _RESOLVE.fullmatch(url.path):
            self._resolve(found)
        elif found := _API.fullmatch(url.path):
            self._api(method, found, body, parse_qs(url.query))
        else:
            self._error(404, "EntryNotFound", f"no such page {url.path}")

    def _read_chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    # -- requests --------------------------------------------------------------------------

    def _create(self, request: dict[str, Any]) -> None:
        kind = f"{request.get('type') or 'model'}s"
        name = f"{request.get('organization') or 'me'}/{request['name']}"
        if not self._may("write", name):
            return
        url = self._url(kind, name)
        if f"{kind}/{name}" in self.hub.repositories:
            self._json({"error": "You already created this repo", "url": url}, 409)
            return
        repository = self.hub.repositories[f"{kind}/{name}"] = Repository()
        repository.commit({".gitattributes": b"*.parquet filter=lfs\n"}, "main")
        self._json({"url": url, "name": name, "id": name})

    def _offer_uploads(self, objects: list[dict[str, Any]]) -> None:
        for item in objects:
            item["actions"] = {"upload": {"href": f"{self.hub.url}/upload/{item['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def _resolve(self, found: re.Match[str]) -> None:
        kind = "datasets" if found["kind"] else "models"
        files, oid = self._files(kind, found["name"], unquote(found["revision"]))
        if files is None:
            return
        path = unquote(found["path"])
        if path not in files:
            self._error(404, "EntryNotFound", f"no file {path}", commit=oid)
            return
        data, headers, status = files[path], {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}, 200
        headers["ETag"] = f'"{_hash(data)}"'
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), int(part[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            data, status = data[first : last + 1], 206
        self._send(status, data, "application/octet-stream", headers)

    def _api(self, method: str, found: re.Match[str], body: bytes, query: dict) -> None:
        kind, name, verb = found["kind"], found["name"], found["verb"]
        revision = unquote(found["revision"] or "main")
        if method == "POST" and verb in WRITES and not self._may("write", name):
            return
        if verb == "branch":
            start = json.loads(body or b"{}").get("startingPoint", "main")
            files, oid = self._files(kind, name, start)
            if files is not None:
                self.hub.repositories[f"{kind}/{name}"].refs.setdefault(revision, oid)
                self._json({})
            return
        files, oid = self._files(kind, name, revision)
        if files is None:
            return
        if verb == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            answers = [{"path": p, "uploadMode": modes[p.endswith(LARGE)]} for p in paths]
            self._json({"files": [{**answer, "shouldIgnore": False} for answer in answers]})
        elif verb == "commit":
            self._commit(kind, name, revision, dict(files), body)
        elif verb == "tag" and method == "POST":
            refs = self.hub.repositories[f"{kind}/{name}"].refs
            refs[json.loads(body)["tag"]] = oid
            self._json({})
        elif verb == "tree":
            folder = unquote(found["path"] or "")
            recursive = query.get("recursive", ["False"])[0].lower() in ("true", "1")
            self._tree(files, folder, recursive, oid)
        elif verb == "paths-info":
            request = parse_qs(body.decode())
            paths = request.get("paths", [])
            entries = (_entry(files, path.strip("/"), oid) for path in paths)
            self._json([entry for entry in entries if entry is not None])
        elif verb == "refs":
            refs = self.hub.repositories[f"{kind}/{name}"].refs
            named = [{"name": n, "ref": n, "targetCommit": c} for n, c in refs.items()]
            self._json({"branches": named, "tags": [], "converts": []})
        elif verb in (None, "revision"):
            siblings = [{"rfilename": path} for path in sorted(files)]
            about = {"id": name, "sha": oid, "siblings": siblings, "tags": [], "private": False}
            self._json({**about, "downloads": 0, "likes": 0, "lastModified": DATE})
        else:
            self._error(404, "EntryNotFound", f"no such page {self.path}")

    def _commit(self, kind: str, name: str, branch: str, files: Files, body: bytes) -> None:
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                for path in [p for p in files if p.startswith(value["path"].rstrip("/") + "/")]:
                    del files[path]
            elif key != "header":
                self._error(400, "BadRequest", f"unknown operation {key}")
                return
        oid = self.hub.repositories[f"{kind}/{name}"].commit(files, branch)
        self._json({"commitUrl": f"{self._url(kind, name)}/commit/{oid}", "commitOid": oid})

    def _tree(self, files: Files, folder: str, recursive: bool, oid: str) -> None:
        inside = folder + "/" if folder else ""
        names: dict[str, None] = {}
        for path in sorted(files):
            if path.startswith(inside):
                parts = path[len(inside) :].split("/")
                for n in range(1, len(parts) + 1 if recursive else 2):
                    names[inside + "/".join(parts[:n])] = None
        if not names and folder:
            self._error(404, "EntryNotFound", f"no folder {folder}", commit=oid)
            return
        self._json([_entry(files, name, oid) for name in names])

    def _url(self, kind: str, name: str) -> str:
        return f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"

    # -- answers ---------------------------------------------------------------------------

    def _may(self, what: str, name: str) -> bool:
        """Check the token, and answer 401 if it is missing."""
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if known or (what == "read" and not name.startswith("private/")):
            return True
        self._error(401, "RepoNotFound", "Invalid username or password.")
        return False

    def _files(self, kind: str, name: str, revision: str) -> tuple[Files | None, str]:
        if not self._may("read", name):
            return None, ""
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if repository is None:
            self._error(404, "RepoNotFound", "Repository not found")
            return None, ""
        oid = repository.find(revision)
        if oid is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None, ""
        return repository.commits[oid], oid

    def _error(self, status: int, code: str, message: str, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        if commit is not None:
            headers["X-Repo-Commit"] = commit
        self._send(status, json.dumps({"error": message}).encode(), "application/json", headers)

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), "application/json", {})

    def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(files: Files, path: str, oid: str) -> dict[str, Any] | None:
    last = {"id": oid, "title": "commit", "date": DATE}
    if path in files:
        data = files[path]
        return {
            "type": "file", "path": path, "size": len(data), "oid": _hash(data), "lastCommit": last
        }  # fmt: skip
    if any(name.startswith(path + "/") for name in files) or not path:
        return {"type": "directory", "path": path, "oid": oid, "size": 0, "lastCommit": last}
    return None


def _hash(data: bytes) -> str:
    """Return the name that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
