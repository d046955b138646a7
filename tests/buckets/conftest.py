"""A server of buckets for each test, and a cache folder of its own."""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import bucket_server
import processes
import pytest


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Has the bucket `bucket`, and this process finds it."""
    with bucket_server.BucketServer() as running:
        bucket_server.use(running.url, tmp_path, monkeypatch)
        yield running


@pytest.fixture
def moto(tmp_path, monkeypatch):
    """The address of moto's server, which is another program's idea of S3; it has the bucket `bucket`."""
    program = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
    if not program:
        pytest.skip("needs moto's server in an environment of its own: MOTO_SERVER=VENV/bin/moto_server")
    port = processes.free_port()
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
    with subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL) as running:
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=5)
                break
            except (urllib.error.URLError, OSError):
                assert running.poll() is None and time.monotonic() < end
                time.sleep(0.2)
        bucket_server.use(url, tmp_path, monkeypatch)
        yield url
        running.kill()
