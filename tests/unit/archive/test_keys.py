"""Names of objects: made, read back, and foreign ones left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.archive.keys import Keys, default_prefix
from replicator.archive.names import (
    EncryptedName,
    MergeName,
    NamedPin,
    PinName,
    ProofName,
    SegmentName,
    SnapshotName,
    parse,
)

GENERATION = "0190a2b4-0000-7000-8000-0000000000ff"
TXIDS = st.integers(1, 2**63 - 1)


@pytest.mark.parametrize(
    ("given_prefix", "root"),
    [("", ""), ("/", ""), ("app.db", "app.db/"), ("/a/b/", "a/b/"), ("ä ö/x", "ä ö/x/")],
)
def test_keys_below_a_prefix(given_prefix, root):
    """The layout, word for word; slashes around the prefix do not matter."""
    keys = Keys(given_prefix)
    assert keys.root == root
    assert keys.wal_dir == f"{root}wal/"
    assert keys.snapshot_dir == f"{root}snapshots/"
    assert keys.merged_dir == f"{root}merged/"
    assert keys.metadata == f"{root}metadata.json"
    assert keys.wal(255) == f"{root}wal/00000000000000ff.wal.zst"
    assert keys.merged(2, 16, 31) == (f"{root}merged/2/0000000000000010-000000000000001f.wal.zst")
    assert keys.snapshot(1, GENERATION) == (
        f"{root}snapshots/0000000000000001-{GENERATION}.sqlite.zst"
    )


@given(st.sampled_from(["", "p", "a/b"]), TXIDS, TXIDS, st.integers(1, 99))
def test_what_is_made_reads_back(prefix, first, last, level):
    """Every kind of key, below every prefix, gives its parts again."""
    keys, first, last = Keys(prefix), min(first, last), max(first, last)
    wal, merged = keys.wal(first), keys.merged(level, first, last)
    snapshot = keys.snapshot(last, GENERATION)
    assert parse(keys, wal) == SegmentName(first)
    assert parse(keys, merged) == MergeName(level, first, last)
    assert parse(keys, snapshot) == SnapshotName(last, GENERATION)
    for key in (wal, merged, snapshot):
        assert parse(keys, key + ".age") == EncryptedName()
        assert parse(Keys("other"), key) is None


@given(st.sampled_from(["", "p", "a/b"]), TXIDS, st.integers(0, 253_402_300_799_999))
def test_records_read_back(prefix, txid, at_ms):
    """They are never encrypted."""
    keys = Keys(prefix)
    assert parse(keys, keys.proof(at_ms, "proven", txid)) == ProofName(at_ms, "proven", txid)
    assert parse(keys, keys.pin(txid)) == PinName(txid)
    assert parse(keys, keys.pin(txid) + ".age") is None
    assert parse(keys, keys.named_pin("v1.json")) == NamedPin("v1.json")


@given(TXIDS, TXIDS)
def test_keys_sort_in_log_order(a, b):
    """The order of names is the order of txids."""
    keys = Keys("p")
    assert (keys.wal(a) < keys.wal(b)) == (a < b)
    assert (keys.snapshot(a, GENERATION) < keys.snapshot(b, GENERATION)) == (a < b)


@pytest.mark.parametrize(
    "name",
    [
        "metadata.json",
        "metadata.json.age",
        "wal/",
        "wal/1.wal.zst",
        "wal/00000000000000FF.wal.zst",
        "wal/00000000000000ff.wal.gz",
        "wal/00000000000000ff.wal.zst.tmp",
        "wal/00000000000000ff.wal.zst.age.age",
        "wal/00000000000000ff.wal.zst\n",
        "wal/x/00000000000000ff.wal.zst",
        "wal/0000000000000000.wal.zst",
        "wal/8000000000000000.wal.zst",
        "merged/0/0000000000000010-000000000000001f.wal.zst",
        "merged/1/0000000000000010-000000000000000f.wal.zst",
        f"snapshots/0000000000000000-{GENERATION}.sqlite.zst",
        "merged/100/0000000000000010-000000000000001f.wal.zst",
        "merged/01/0000000000000010-000000000000001f.wal.zst",
        "merged/1/0000000000000010.wal.zst",
        "snapshots/0000000000000001.sqlite.zst",
        "snapshots/0000000000000001-x.sqlite.zst",
        "pins/a/b.json",
        "pins/now.json",
        "pins/1a.json",
        "pins/a.json.age",
        f"xsnapshots/0000000000000001-{GENERATION}.sqlite.zst",
    ],
)
def test_foreign_names_are_left_alone(name):
    """Close is not enough."""
    assert parse(Keys(""), name) is None
    assert parse(Keys("p"), f"p/{name}") is None


def test_default_prefix_is_the_file_name(tmp_path):
    """Of a path in any form."""
    assert default_prefix("/srv/app.db") == "app.db"
    assert default_prefix("app.db") == "app.db"
    assert default_prefix(tmp_path / "my data.sqlite") == "my data.sqlite"
