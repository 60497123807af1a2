"""The refusals of a store, each with its own class: on S3 servers and on a directory."""

import socket

import pytest

from replicator.errors import AccessDenied, BucketMissing, ObjectExists, StoreUnavailable
from replicator.store.base import Part
from replicator.store.directory import DirectoryStore
from replicator.store.s3 import S3Store
from tests.helpers.errors import raises

CALLS = {
    "put": lambda s, k: s.put(k, b"x"),
    "replace": lambda s, k: s.put(k, b"x", if_absent=False),
    "get": lambda s, k: s.get(k),
    "nothing": lambda s, k: s.get(k, 0, 0),
    "range": lambda s, k: s.get(k, 1, 2),
    "head": lambda s, k: s.head(k),
    "list": lambda s, k: list(s.list(k)),
    "folders": lambda s, k: s.folders(k + "/"),
    "delete": lambda s, k: s.delete(k),
    "begin_upload": lambda s, k: s.begin_upload(k),
    "list_uploads": lambda s, k: s.list_uploads(k),
}
PART_CALLS = {
    "put_part": lambda s, k: s.put_part(k, "x", 1, b"x"),
    "list_parts": lambda s, k: s.list_parts(k, "x"),
    "complete_upload": lambda s, k: s.complete_upload(k, "x", [Part(1, 1, "x")]),
    "abort_upload": lambda s, k: s.abort_upload(k, "x"),
}
READS = ["get", "nothing", "range", "head", "list", "folders"]


def each(calls):
    return pytest.mark.parametrize("call", list(calls.values()), ids=list(calls))


@pytest.fixture(params=["directory", "moto", "seaweed"])
def bucketless(request, tmp_path):
    """Stores whose bucket, or directory, does not exist."""
    if request.param == "directory":
        return DirectoryStore(tmp_path / "none")
    if request.param == "moto":
        return S3Store(
            "no-such-bucket",
            endpoint_url=request.getfixturevalue("moto_server"),
            credentials=("a", "b"),
        )
    server = request.getfixturevalue("seaweed")
    return S3Store(
        "no-such-bucket",
        endpoint_url=server.endpoint_url,
        credentials=(server.access_key, server.secret_key),
    )


@each(CALLS)
def test_a_missing_bucket_is_not_a_missing_object(bucketless, prefix, call):
    """In every call: an absent bucket must never look like an empty one."""
    with pytest.raises(BucketMissing):
        call(bucketless, prefix)


@each({**CALLS, **PART_CALLS})
@pytest.mark.parametrize("keys", ["unknown", "wrong secret"])
def test_wrong_credentials_are_denied(seaweed, prefix, call, keys):
    """In every call and for any reason; also for HEAD, whose answer has no body."""
    pair = {"unknown": ("stranger", "x"), "wrong secret": (seaweed.access_key, "x")}[keys]
    store = S3Store(seaweed.bucket, endpoint_url=seaweed.endpoint_url, credentials=pair)
    with pytest.raises(AccessDenied) as caught:
        call(store, prefix)
    assert "x" not in pair or seaweed.secret_key not in str(caught.value)


def test_a_reader_reads_and_nothing_else(seaweed, seaweed_store, prefix):
    """The identity that may only read gets everything, and a clear no to each write."""
    seaweed_store.put(f"{prefix}/a", b"x", metadata={"n": "1"})
    reader = seaweed.store(reader=True)
    assert reader.get(f"{prefix}/a") == b"x"
    assert dict(reader.head(f"{prefix}/a").metadata) == {"n": "1"}
    assert [i.key for i in reader.list(f"{prefix}/")] == [f"{prefix}/a"]
    assert reader.folders("") == seaweed_store.folders("")
    for call in (CALLS["put"], CALLS["replace"], CALLS["delete"], CALLS["begin_upload"]):
        with pytest.raises(AccessDenied):
            call(reader, f"{prefix}/b")


def test_no_credentials_at_all_are_denied_until_there_are_some(seaweed, prefix, monkeypatch):
    """Nothing is remembered of the failure: the same store works once they turn up."""
    store = S3Store(seaweed.bucket, endpoint_url=seaweed.endpoint_url)
    with raises(AccessDenied, "no_credentials", key=f"{prefix}/a"):
        store.put(f"{prefix}/a", b"x")
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    store.put(f"{prefix}/a", b"x")


def test_rotated_credentials_are_picked_up(seaweed, prefix, monkeypatch):
    """After a refusal of the key itself the environment and the profile are read again."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of yesterday")
    store = S3Store(seaweed.bucket, endpoint_url=seaweed.endpoint_url)
    with pytest.raises(AccessDenied):
        store.head(f"{prefix}/a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_key)
    store.put(f"{prefix}/a", b"x")


def test_a_profile_brings_credentials_and_region(seaweed, prefix, monkeypatch, tmp_path):
    """As the AWS tools keep them."""
    (tmp_path / "credentials").write_text(
        f"[work]\naws_access_key_id={seaweed.access_key}\n"
        f"aws_secret_access_key={seaweed.secret_key}\n"
    )
    (tmp_path / "config").write_text("[profile work]\nregion=eu-central-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    store = S3Store(seaweed.bucket, endpoint_url=seaweed.endpoint_url, profile="work")
    store.put(f"{prefix}/a", b"x")
    assert store.client.api().meta.region_name == "eu-central-1"


@each({**CALLS, **PART_CALLS})
def test_a_refused_connection_may_pass(prefix, call):
    """With no server, every call raises the error for an outage."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        store = S3Store("b", endpoint_url=f"http://127.0.0.1:{port}", credentials=("a", "b"))
        with pytest.raises(StoreUnavailable):
            call(store, prefix)


@each({**CALLS, **PART_CALLS})
def test_a_server_that_never_answers_is_given_up(prefix, call):
    """Connections are accepted, nothing comes back: the read timeout ends every call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = S3Store(
            "b",
            endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}",
            credentials=("a", "b"),
            read_timeout=0.05,
        )
        with pytest.raises(StoreUnavailable):
            call(store, prefix)


@pytest.mark.parametrize("checksums", ["when_required", "when_supported"])
@pytest.mark.parametrize("kind", ["moto", "seaweed"])
def test_both_kinds_of_checksums_work(request, kind, checksums, prefix):
    """botocore's own checksums and ours are compatible, small or large, whole or in parts."""
    plain = request.getfixturevalue(f"{kind}_store")
    store = S3Store(
        plain._bucket,
        endpoint_url=plain.client.settings.endpoint_url,
        checksums=checksums,
        credentials=plain.client.settings.credentials,
    )
    for size in (0, 100, 3 << 20):
        store.put(f"{prefix}/{size}", bytes(size))
        assert store.get(f"{prefix}/{size}") == bytes(size)
        with pytest.raises(ObjectExists):
            store.put(f"{prefix}/{size}", bytes(size))
    upload_id = store.begin_upload(f"{prefix}/parts")
    parts = [store.put_part(f"{prefix}/parts", upload_id, 1, bytes(6 << 20))]
    store.complete_upload(f"{prefix}/parts", upload_id, parts)
    assert store.head(f"{prefix}/parts").size == 6 << 20
