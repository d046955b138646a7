"""Stands between a program and a server of buckets, and lets some requests fail."""

import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultProxy(ThreadingHTTPServer):
    """Forwards requests to `upstream`, a URL; use it in a `with`.

    busy, hung, cut: shares of requests that are answered by 503, by nothing for `hang` seconds, by half an answer.
    delay: seconds that every request takes longer. away: while it is set, no connection is served.
    """

    daemon_threads, request_queue_size = True, 128

    def __init__(
        self, upstream: str, busy: float = 0, hung: float = 0, cut: float = 0, hang: float = 30, delay: float = 0
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.busy, self.hung, self.cut, self.hang, self.delay = busy, hung, cut, hang, delay
        self.away = threading.Event()
        self.random, self.guard = random.Random(0), threading.Lock()
        self.faults = {"busy": 0, "hung": 0, "cut": 0, "away": 0, "passed": 0}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A connection that the other side has closed is no news."""

    def chosen(self) -> str:
        """What becomes of the next request."""
        with self.guard:
            draw, found = self.random.random(), "passed"
            for name in ("busy", "hung", "cut"):
                share = getattr(self, name)
                if found == "passed" and draw < share:
                    found = name
                draw -= share
            found = "away" if self.away.is_set() else found
            self.faults[found] += 1
            return found

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fate = self.server.chosen()
        if fate == "away":
            self.close_connection = True
            return None
        time.sleep(self.server.delay)
        if fate == "hung":
            time.sleep(self.server.hang)
            self.close_connection = True
            return None
        if fate == "busy":
            return self._reply(503, b"<Error><Code>SlowDown</Code></Error>", {}, False)
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        self._reply(answer.status, data, dict(answer.getheaders()), fate == "cut")
        upstream.close()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _reply(self, status: int, data: bytes, facts: dict[str, str], cut: bool) -> None:
        self.send_response_only(status)
        for name, value in facts.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if status not in (204, 304):
            length = facts.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
        self.end_headers()
        if cut:  # also where there is nothing to say: what was asked for is done, and nobody hears of it
            self.close_connection = True
            data = data[: len(data) // 2]
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(data)
