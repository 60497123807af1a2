"""Commands on a bucket that an attacker can write to: no traceback, and nothing acts on a terminal.

`metadata.json`, pins, records and metadata are never needed: whatever they hold, the commands do
their work.
"""

import json

import pytest

from replicator.store.directory import HIDDEN, DirectoryStore
from tests.helpers.hostile import index_bomb
from tests.helpers.memory import memory_limit

FORGED = "x\n2026-01-01 00:00:00,000 INFO    all is well\x1b[2J\u202e[red]"

DOCUMENTS = {
    "null": b"null",
    "list": b"[1, 2]",
    "deep": b'{"note": ' + b"[" * 100_000,
    "nested": b'{"note": ' + b"[" * 50 + b"]" * 50 + b"}",
    "surrogate": b'{"txid": 2, "note": "\\ud800"}',
    "no text": b'{"txid": {"a": []}, "note": null}',
    "no UTF-8": b"\xff\xfe\x00",
    "long": b'{"note": "' + b"x" * 100_000 + b'"}',
    "digits": b'{"txid": ' + b"9" * 10_000 + b"}",
    "escapes": json.dumps({"note": FORGED, "reason": FORGED, "host": FORGED}).encode(),
}

COMMANDS = (
    ("verify",),
    ("verify", "--data"),
    ("history",),
    ("history", "--transactions"),
    ("prune",),
    ("prune", "--all"),
    ("cost",),
    ("pin",),
    ("restore", "--dry-run"),
)


@pytest.fixture
def hostile(bucket, bucket_dir):
    """Objects of a real archive in a directory, and a function that damages the optional ones."""
    store = DirectoryStore(bucket_dir)
    for key in bucket.objects():
        store.put(key, bucket.store.get(key), metadata=bucket.store.head(key).metadata)

    def spoil(body):
        keys = bucket.keys
        records = keys.pin(2), keys.named_pin("here"), keys.proof(1_700_000_000_000, "proven", 2)
        for key in (keys.metadata, *records):
            store.put(key, body, if_absent=False)
        for path in (bucket_dir / HIDDEN / "metadata").rglob("*.json"):
            path.write_bytes(body)

    return spoil


@pytest.mark.parametrize("name", DOCUMENTS)
def test_optional_objects_are_read_as_optional(hostile, bucket_url, run, tmp_path, name):
    """Each command succeeds and prints lines of printable text; JSON output is JSON."""
    hostile(DOCUMENTS[name])
    for command in COMMANDS:
        output = ["-o", tmp_path / "o"] if command[0] == "restore" else []
        code, out, _ = run(*command, "--url", bucket_url, *output)
        assert code == 0, command
        assert all(line.isprintable() for line in out.splitlines()), command
        assert not any(line.startswith("2026-01-01") for line in out.splitlines()), command
        code, out, _ = run(*command, "--url", bucket_url, *output, "--json")
        assert code == 0, command
        json.loads(out)


def test_metadata_of_people_is_escaped(bucket, bucket_dir, bucket_url, run):
    """Reason and host of an event come from the bucket, and are shown as text."""
    store = DirectoryStore(bucket_dir)
    for key in bucket.objects():
        metadata = dict(bucket.store.head(key).metadata)
        metadata |= {"reason": FORGED, "host": FORGED, "last-event": "1"}
        store.put(key, bucket.store.get(key), metadata=metadata)
    code, out, _ = run("history", "--url", bucket_url)
    assert code == 0
    assert r"x\n2026-01-01 00:00:00,000 INFO    all is well\x1b[2J\u202e[red]" in out
    assert all(line.isprintable() for line in out.splitlines())


def test_an_unreadable_note_is_reported_once(hostile, bucket_url, run, caplog):
    """The pin counts all the same; one warning names its key, and one that of a name."""
    hostile(DOCUMENTS["deep"])
    code, out, _ = run("pin", "--url", bucket_url, "--json")
    assert (code, json.loads(out)) == (0, [{"txid": 2, "note": "", "name": ""}])
    keys = ["app.db/pins/0000000000000002.json", "app.db/pins/here.json"]
    assert sorted(record.args[0] for record in caplog.records) == keys


MOST_MEMORY = 300 << 20


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        (("restore", "-o"), {3}),
        (("restore", "--allow-older", "-o"), {0}),
        (("drill",), {3}),
        (("history", "--transactions"), {3}),
        (("verify", "--data"), {3}),
        (("cost",), {3}),
        (("prune",), {0, 3}),
    ],
)
def test_an_object_that_claims_millions_takes_no_memory(
    bucket, bucket_dir, bucket_url, run, tmp_path, command, codes
):
    """The newest segment lists 25 million transactions in 10 kB, and its metadata claims them."""
    store = DirectoryStore(bucket_dir)
    for key in bucket.objects():
        store.put(key, bucket.store.get(key), metadata=bucket.store.head(key).metadata)
    key, last = bucket.keys.wal(bucket.txid + 1), str(bucket.txid + 25_000_000)
    newest = max(each for each in bucket.objects() if "/wal/" in each)
    metadata = store.head(newest).metadata
    metadata |= {"first-txid": str(bucket.txid + 1), "last-txid": last}
    store.put(key, index_bomb(25_000_000, first=bucket.txid + 1), metadata=metadata)
    output = [tmp_path / "o"] if command[-1] == "-o" else []
    with memory_limit(MOST_MEMORY):
        code, _, err = run(*command, *output, "--url", bucket_url)
    assert code in codes, err
    assert "Traceback" not in err
