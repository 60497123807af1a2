"""A file counts as complete only if it is, page by page, the database of the plan."""

import pytest

from replicator import restore
from replicator.recovery.api import RestoreRun, plan_run
from replicator.recovery.existing import is_complete
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.progress import Meter
from replicator.store.retry import RetryingStore, RetryPolicy
from replicator.system.database_files import count_descriptors
from replicator.system.files import LOCAL
from replicator.system.paths import restore_marker_path
from tests.helpers.restores import request


@pytest.fixture
def complete(bucket, tmp_path):
    """``complete(txid)``: is the file complete for a restore to that transaction?"""

    def complete(path, txid=None):
        store = RetryingStore(bucket.store, RetryPolicy())
        run = RestoreRun(store, "app.db", path, LOCAL, Meter(None), RecoveryLimits())
        return is_complete(path, plan_run(request(txid=txid), run), LOCAL)

    return complete


def test_the_restored_file_is_complete_for_its_transaction_alone(bucket, tmp_path, complete):
    """At every other transaction, also inside an object; the descriptor is closed again."""
    path = tmp_path / "out.db"
    for txid in range(2, bucket.txid + 1, 2):
        restore(store=bucket.store, prefix="app.db", output=path, txid=txid, overwrite=True)
        assert complete(path, txid)
        others = {other for other in (txid - 1, txid + 1) if other in bucket.images}
        same = {other for other in others if bucket.images[other] == bucket.images[txid]}
        assert {other for other in others if complete(path, other)} <= same
    facts = path.stat()
    assert count_descriptors((facts.st_dev, facts.st_ino)) == 0


def test_without_its_marker_the_checksum_decides(bucket, tmp_path, complete):
    """Where the archive holds one: at the end of an object."""
    path = tmp_path / "out.db"
    for txid, known in ((bucket.txid, True), (bucket.txid - 1, False)):
        restore(store=bucket.store, prefix="app.db", output=path, txid=txid, overwrite=True)
        restore_marker_path(path).unlink()
        assert complete(path, txid) == known


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1] + b"!",
        lambda data: data + bytes(4096),
        lambda data: data[:-4096],
        lambda data: data[:-10],
        lambda data: b"",
        lambda data: b"no database" * 1000,
    ],
)
def test_any_other_file_is_not_complete(bucket, tmp_path, complete, change):
    """One byte, one page more or less, no database."""
    path = tmp_path / "out.db"
    restore(store=bucket.store, prefix="app.db", output=path)
    path.write_bytes(change(path.read_bytes()))
    assert not complete(path)


def test_no_file_and_a_directory_are_not_complete(tmp_path, complete):
    """Nor does the look fail."""
    assert not complete(tmp_path / "none.db")
    assert not complete(tmp_path)


def test_a_file_that_is_open_here_stays_open(bucket, tmp_path, complete):
    """A close would drop the locks of this process on it."""
    path = tmp_path / "out.db"
    restore(store=bucket.store, prefix="app.db", output=path)
    with path.open("rb") as own:
        assert complete(path)
        facts = path.stat()
        assert count_descriptors((facts.st_dev, facts.st_ino)) == 2
        assert own.read(6) == b"SQLite"
