"""Which locations are in buckets, what a bucket does, and what is said where one does not answer."""

import threading
import time

import pytest
from fault_proxy import FaultProxy

from simfle_jax import storage
from simfle_jax.errors import UserError
from simfle_jax.storage import Bucket, NoAccess, Unreachable, is_bucket

both = pytest.mark.parametrize("kind", ["s3", "gs"])


def test_a_location_is_in_a_bucket_or_on_the_disk():
    assert is_bucket("gs://bucket/a/b") and is_bucket("s3://bucket")
    assert not any(map(is_bucket, ("a/b", "/a:/b", "C:/faces", "C:\\faces", "", "a b/s3:x")))


@pytest.mark.parametrize(
    "text, said",
    [
        ("gs:/bucket/a", "write it with two slashes, gs://bucket/a"),
        ("s3:///bucket", "s3://bucket"),
        ("gs://", "gs://BUCKET/PREFIX"),
        ("az://bucket/a", "az: is not known here"),
    ],
)
def test_a_wrong_name_is_told(text, said):
    with pytest.raises(UserError, match=said):
        is_bucket(text)


@both
def test_objects_are_written_read_listed_and_removed(kind, server):
    bucket = Bucket(f"{kind}://bucket/runs/one/")
    bucket.require_folder()
    assert bucket.read("a.txt") is None
    bucket.write("a.txt", b"12345")
    bucket.write("b/c.txt", b"")
    Bucket(f"{kind}://bucket/runs/one-more").write("d", b"1")
    assert (bucket.read("a.txt"), bucket.read("b/c.txt")) == (b"12345", b"")
    assert bucket.piece("a.txt", 1, 3).data == b"23"
    assert bucket.names() == ["a.txt", "b/c.txt"] and bucket.names("b/") == ["b/c.txt"]
    bucket.remove("a.txt")
    bucket.remove("a.txt")
    assert not bucket.is_there("a.txt") and bucket.is_there("b/c.txt") and not bucket.is_there("b/c")


@both
def test_of_two_that_write_at_once_one_is_told(kind, server):
    bucket = Bucket(f"{kind}://bucket/runs")
    nothing = bucket.look("lock").version
    assert bucket.write_if("lock", b"one", nothing)
    assert not bucket.write_if("lock", b"other", nothing)
    now = bucket.look("lock")
    assert now.data == b"one"
    assert not bucket.remove_if("lock", nothing) and bucket.write_if("lock", b"two", now.version)
    assert not bucket.remove_if("lock", now.version) and bucket.read("lock") == b"two"
    assert bucket.remove_if("lock", bucket.look("lock").version) and bucket.read("lock") is None


@both
def test_what_is_wrong_is_told_in_one_line(kind, server):
    Bucket(f"{kind}://bucket").write("file", b"1")
    for location, said in (("nosuch/a", "there is no bucket"), ("bucket/file", "is an object and no folder")):
        with pytest.raises(UserError, match=said) as caught:
            Bucket(f"{kind}://{location}").require_folder()
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no bucket"):
        Bucket(f"{kind}://nosuch/a").write("b", b"1")
    server.denied = True
    for request in (lambda bucket: bucket.read("file"), lambda bucket: bucket.write("x", b"1"), Bucket.names):
        with pytest.raises(NoAccess, match=f"no permission .* write {kind}://bucket") as caught:
            request(Bucket(f"{kind}://bucket"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind, refusal, said", [
    ("s3", (400, "ExpiredToken"), "no permission .*give credentials"),
    ("s3", (403, "SignatureDoesNotMatch"), "no permission .*give credentials"),
    ("gs", (401, "Invalid Credentials"), "no permission .*give credentials"),
    ("s3", (403, "RequestTimeTooSkewed"), "the clock of this machine is not that of .*: set it"),
])  # fmt: skip
def test_credentials_that_expire_and_a_wrong_clock_are_told_at_once(kind, refusal, said, server):
    server.denied, server.refusal = True, refusal
    with pytest.raises(NoAccess, match=f"^{kind}://bucket/a: {said}.*the same command goes on") as caught:
        Bucket(f"{kind}://bucket/a").read("b")
    assert "\n" not in str(caught.value)


@both
def test_requests_that_fail_are_made_again(kind, server, monkeypatch, tmp_path):
    with FaultProxy(server.url, busy=0.3, cut=0.2) as proxy:
        for name in ("AWS_ENDPOINT_URL", "TENSORSTORE_GCS_HTTP_URL"):
            monkeypatch.setenv(name, proxy.url)
        bucket = Bucket(f"{kind}://bucket/many{proxy.server_address[1]}")
        for number in range(10):
            bucket.write(f"{number}", b"%d" % number * 999)
        assert [bucket.read(f"{number}") for number in range(10)] == [b"%d" % number * 999 for number in range(10)]
        assert proxy.faults["busy"] and proxy.faults["cut"], proxy.faults


def test_a_bucket_that_is_away_is_waited_for_and_then_told(server, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 2.0)
    with FaultProxy(server.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        bucket = Bucket("s3://bucket/away")
        proxy.away.set()
        with pytest.raises(Unreachable, match=r"has not answered for 2 s .* the same command goes on"):
            bucket.read("a")
        monkeypatch.setattr(storage, "PATIENCE", 60.0)
        threading.Timer(1.0, proxy.away.clear).start()
        began = time.monotonic()
        assert bucket.read("a") is None and time.monotonic() - began > 0.5
