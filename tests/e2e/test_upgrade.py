"""A newer version continues the work of an older one that was killed.

The fixture ``sidecar-v1`` holds a database, its cache with a ledger of format 1, and its store, as
a sidecar of the last version with that format left them: killed while the store was away, with
segments that wait. It is kept for ever.
"""

import hashlib
import json
import sqlite3
import tarfile
from pathlib import Path

import pytest

from replicator import SqliteReplicatorConfig, restore
from replicator.engine.in_process import InProcessReplicator
from tests.helpers.replication import LONG

FIXTURE = Path(__file__).parents[1] / "fixtures" / "sidecar-v1"
KNOWN = json.loads((FIXTURE / "facts.json").read_text())


@pytest.fixture
def killed_sidecar(tmp_path):
    """The directory that a killed sidecar of the old version left."""
    with tarfile.open(FIXTURE / "killed.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def settings(place):
    return SqliteReplicatorConfig(
        db_path=place / "app.db",
        url=f"file://{place}/store",
        prefix="app.db",
        cache_dir=place / "cache",
        keep=False,
    )


def rows_of(path):
    db = sqlite3.connect(path)
    rows = db.execute("SELECT id, body FROM t ORDER BY id").fetchall()
    db.close()
    return rows


def test_waiting_segments_of_an_older_version_are_sent_as_they_are(killed_sidecar):
    """The same generation, the same bytes under the same keys, no transaction lost."""
    with InProcessReplicator(settings(killed_sidecar)) as replicator:
        position = replicator.flush(LONG)
    assert position.generation == KNOWN["generation"]
    assert position.txid > KNOWN["captured"] > KNOWN["durable"]
    for txid, sha256 in KNOWN["waiting"].items():
        stored = (killed_sidecar / "store" / "app.db" / "wal" / f"{txid}.wal.zst").read_bytes()
        assert hashlib.sha256(stored).hexdigest() == sha256
    report = restore(
        url=f"file://{killed_sidecar}/store", prefix="app.db", output=killed_sidecar / "out.db"
    )
    assert (report.generation, report.txid) == (KNOWN["generation"], position.txid)
    assert rows_of(killed_sidecar / "out.db") == rows_of(killed_sidecar / "app.db")
    assert len(rows_of(killed_sidecar / "out.db")) == KNOWN["rows"]


def test_each_transaction_captured_by_the_older_version_is_restorable(killed_sidecar):
    """Also those that only its cache held."""
    with InProcessReplicator(settings(killed_sidecar)) as replicator:
        replicator.flush(LONG)
    counts = []
    for txid in range(KNOWN["durable"], KNOWN["captured"] + 1):
        output = killed_sidecar / f"{txid}.db"
        restore(url=f"file://{killed_sidecar}/store", prefix="app.db", output=output, txid=txid)
        counts.append(len(rows_of(output)))
    assert counts == sorted(set(counts))
    assert counts[-1] == KNOWN["rows"] - 2  # two commits that the older version did not capture
