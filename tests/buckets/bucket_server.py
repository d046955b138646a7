"""A server of buckets on 127.0.0.1 that speaks what TensorStore says to S3 and to Google Cloud Storage, preconditions included.

Objects are in memory. `calls` counts requests by method, and by method and first folder ("GET faces"), `received` and `sent` the
bytes of objects. The tests start it in their own process; `python tests/buckets/bucket_server.py --delay=0.02` is for benchmarks
and trials: it prints what a shell must be told, and when Ctrl-C ends it what it was asked for.
"""

import argparse
import collections
import hashlib
import itertools
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Stored(NamedTuple):
    data: bytes
    generation: int

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


class BucketServer(ThreadingHTTPServer):
    """Serves the buckets it is told of; use it in a `with`."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self, *buckets: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.buckets: dict[str, dict[str, Stored]] = {name: {} for name in buckets or ("bucket",)}
        self.guard, self.numbers = threading.RLock(), itertools.count(time.time_ns())
        self.calls, self.sent, self.received = collections.Counter(), 0, 0
        self.denied, self.refusal, self.delay = False, (403, "AccessDenied"), 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, name: str, data: bytes) -> None:
        """Places an object in the first bucket, without a request."""
        next(iter(self.buckets.values()))[name] = Stored(data, next(self.numbers))

    def put_folder(self, name: str, folder: Path) -> None:
        """Places the files of a folder there."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def handle_error(self, request, client_address) -> None:
        """A connection that the other side has closed is no news."""

    def __enter__(self) -> "BucketServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BucketServer

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        google = re.match(r"/(?:upload/)?storage/v1/b/([^/]+)(?:/o(?:/(.*))?)?$", parts.path)
        self.is_google = bool(google)
        bucket, key = google.groups() if google else (parts.path.lstrip("/").partition("/")[::2])
        key = unquote(key or self.query.get("name", ""))
        with self.server.guard:
            self.server.calls.update((self.command, f"{self.command} {key.partition('/')[0]}") if key else ("LIST",))
        time.sleep(self.server.delay)
        if self.server.denied:
            return self._refuse(*self.server.refusal)
        if bucket not in self.server.buckets:
            return self._refuse(404, "NoSuchBucket")
        with self.server.guard:
            held = self.server.buckets[bucket]
            if not key:
                return self._list(held)
            work = {"GET": self._get, "HEAD": self._get, "DELETE": self._delete}.get(self.command, self._put)
            reply = work(held, key, body)
        self._reply(*reply)

    def _list(self, held: dict[str, Stored]) -> None:
        names = sorted(name for name in held if name.startswith(self.query.get("prefix", "")))
        first = self.query.get("startOffset", "")
        after = self.query.get("start-after", "")
        last = self.query.get("endOffset") or "\U0010ffff"
        names = [name for name in names if name >= first and name < last and (not after or name > after)]
        if self.is_google:
            return self._reply(200, json.dumps({"items": [{"name": name} for name in names]}).encode(), {})
        found = "".join(
            f"<Contents><Key>{escape(name)}</Key><ETag>{escape(held[name].etag)}</ETag>"
            f"<Size>{len(held[name].data)}</Size></Contents>" for name in names
        )  # fmt: skip
        head = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        text = f"{head}<IsTruncated>false</IsTruncated><KeyCount>{len(names)}</KeyCount>{found}</ListBucketResult>"
        self._reply(200, text.encode(), {"Content-Type": "application/xml"})

    def _stale(self, found: Stored | None) -> bool:
        """Whether the version that the request names is not the one that is there."""
        generation = str(found.generation) if found else "0"
        if (wanted := self.query.get("ifGenerationMatch")) is not None:
            return wanted != generation
        if wanted := self.headers.get("If-Match"):
            return not found or wanted != found.etag
        return self.headers.get("If-None-Match") == "*" and found is not None and self.command == "PUT"

    def _get(self, held: dict[str, Stored], key: str, _: bytes) -> tuple[int, bytes, dict[str, str]]:
        found = held.get(key)
        if not found:
            return self._missing()
        if self._stale(found):
            return 412, b"", {}
        facts = {"ETag": found.etag, "x-goog-generation": str(found.generation)}
        if self.headers.get("If-None-Match") == found.etag:
            return 304, b"", facts
        if self.query.get("ifGenerationNotMatch") == str(found.generation):
            return 304, b"", facts
        data = found.data
        if span := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range") or ""):
            start, stop = int(span[1]), int(span[2] or len(data) - 1) + 1
            facts["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            return 206, data[start:stop], facts
        return 200, data, facts

    def _put(self, held: dict[str, Stored], key: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if self._stale(held.get(key)):
            return 412, b"", {}
        made = held[key] = Stored(body, next(self.server.numbers))
        self.server.received += len(body)
        described = {"generation": str(made.generation), "name": key, "size": str(len(body))}
        return 200, json.dumps(described).encode() if self.is_google else b"", {"ETag": made.etag}

    def _delete(self, held: dict[str, Stored], key: str, _: bytes) -> tuple[int, bytes, dict[str, str]]:
        if self._stale(held.get(key)):
            return 412, b"", {}
        return (204, b"", {}) if held.pop(key, None) or not self.is_google else self._missing()

    def _missing(self) -> tuple[int, bytes, dict[str, str]]:
        return 404, b"" if self.is_google else b"<Error><Code>NoSuchKey</Code></Error>", {}

    def _refuse(self, status: int, code: str) -> None:
        self._reply(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), {})

    def _reply(self, status: int, body: bytes, facts: dict[str, str]) -> None:
        with self.server.guard:
            self.server.sent += len(body) if self.command == "GET" and status < 300 and "list" not in self.path else 0
        self.send_response(status)
        for name, value in facts.items():
            self.send_header(name, value)
        self.send_header("x-amz-bucket-region", "us-east-1")
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)


def use(url: str, folder: Path, monkeypatch) -> None:
    """Lets this process find the buckets, with the copies of this machine in a folder."""
    for name, value in (environment(url) | {"SIMFLE_CACHE_DIR": str(folder / "host")}).items():
        monkeypatch.setenv(name, value)


def environment(url: str) -> dict[str, str]:
    """What a process needs in its environment to find buckets there."""
    return {
        "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "TENSORSTORE_GCS_HTTP_URL": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "test",
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that every request takes longer")
    with BucketServer() as running:
        running.delay = parser.parse_args().delay
        print(*(f"export {name}={value}" for name, value in environment(running.url).items()), sep="\n", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            told = json.dumps(dict(running.calls) | {"bytes sent": running.sent, "bytes received": running.received})
            print(told, file=sys.stderr)
