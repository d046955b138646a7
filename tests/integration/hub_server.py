"""A model hub of one process: what huggingface_hub asks for when it reads a repository and uploads a folder."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """`repositories`: by OWNER/NAME, the files of each revision."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, Files]] = {}
        self.asked: list[str] = []
        self.cards: list[str] = []
        self.closed: dict[str, tuple[int, bytes, dict[str, str]]] = {}  # what it answers instead, by OWNER/NAME
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def commit(files: Files) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        patterns = {
            r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?": self.about,
            r"/api/models/([^/]+/[^/]+)/tree/([^/]+)": self.tree,
            r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self.file,
        }
        for pattern, tell in patterns.items():
            if found := re.fullmatch(pattern, path):
                name, revision, *rest = found.groups()
                if name in self.server.closed:
                    return self.send(*self.server.closed[name])
                repository = self.server.repositories.get(name)
                if repository is None:
                    return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
                known = {commit(files): files for files in repository.values()} | repository
                if (revision or "main") not in known:
                    return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
                return tell(name, known[revision or "main"], *rest)
        return self.send(404, b"")

    def about(self, name, files):
        self.send_json({"id": name, "sha": commit(files), "siblings": [{"rfilename": file} for file in files]})

    def tree(self, name, files):
        self.send_json(
            [{"type": "file", "path": file, "size": len(x), "oid": commit({file: x})} for file, x in files.items()]
        )

    def file(self, name, files, file):
        if file not in files:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        tag = hashlib.sha1(files[file]).hexdigest()
        return self.send(200, files[file], {"ETag": f'"{tag}"', "X-Repo-Commit": commit(files)})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer right":
            return self.send(401, b"")
        if self.path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            return self.send_json({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(name, {"main": {}})
            return self.send_json({"url": f"{self.server.address}/{name}", "id": name})
        name, what, revision = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/?]+).*", self.path
        ).groups()
        if what == "preupload":
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self.send_json({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {
            each["value"]["path"]: base64.b64decode(each["value"]["content"]) for each in lines if each["key"] == "file"
        }
        self.server.repositories[name][revision] |= added
        return self.send_json({"commitUrl": f"{self.server.address}/{name}/commit/1", "commitOid": "1"})

    def send_json(self, content):
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status, body, headers=None):
        self.send_response(status)
        for key, value in ((headers or {}) | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
