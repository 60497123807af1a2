"""Every database of a bucket in one command: complete, again, at one time, and with failures."""

import errno
import os
import sqlite3
import threading

import pytest

from replicator import restore, restore_all
from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.pins import pin
from replicator.archive.timespec import to_text
from replicator.errors import Cancelled, ConfigError, DiskFull, NoBackup, StoreUnavailable
from replicator.recovery.limits import RecoveryLimits, SetLimits
from replicator.recovery.set_report import SEVERITY
from replicator.system.files import Files
from replicator.testing import FaultyStore, raising
from tests.helpers.bucket import commit_ms
from tests.helpers.counting import CountingStore
from tests.helpers.errors import raises
from tests.helpers.replication import HookedStore
from tests.helpers.tenants import Tenants, codes, files_below, restore_set, results
from tests.helpers.users import APP, needs_root

NAMES = ("app.db", "tenants/a.db", "tenants/b.db", "x/y/z")


@pytest.fixture
def tenants(source_directory, memory_store):
    """Four databases at several depths."""
    return Tenants(source_directory, memory_store, *NAMES)


@pytest.fixture
def into(tmp_path):
    """The directory to restore into, which does not exist yet."""
    return tmp_path / "new" / "into"


def gets(store):
    return sum(method == "get" for method, _ in store.calls)


def test_every_database_gets_its_name_below_the_directory(tenants, into):
    """Each is exact, and nothing else is left; the report has the sums."""
    report = restore_all(store=tenants.store, into=into)
    assert results(report) == dict.fromkeys(NAMES, "restored")
    assert files_below(into) == sorted(NAMES)
    assert {(into / name).read_bytes() for name in NAMES} == {tenants.newest}
    assert (report.exit_code, report.counts) == (0, {"restored": 4})
    assert report.needed_bytes == 4 * len(tenants.newest)
    assert {each.report.txid for each in report.databases} == {tenants.built.txid}


def test_a_prefix_and_patterns_choose(tenants, into):
    """Names are those below the prefix; a database at the prefix itself has its last part."""
    tenants.add("tenants")
    assert set(results(restore_all(store=tenants.store, into=into / "1", prefix="tenants"))) == {
        "a.db",
        "b.db",
        "tenants",
    }
    chosen = restore_all(store=tenants.store, into=into / "2", only=["*/a.*", "app.db", "x/**"])
    assert sorted(results(chosen)) == ["app.db", "tenants/a.db", "x/y/z"]
    with raises(ConfigError, "no_match", setting="only"):
        restore_all(store=tenants.store, into=into / "3", only=["*.sqlite"])
    with raises(NoBackup):
        restore_all(store=tenants.store, into=into / "3", prefix="nothing")


def test_a_second_run_leaves_alone_what_equals_the_archive(tenants, into):
    """It downloads no data of those, and restores the one that is missing."""
    restore_all(store=tenants.store, into=into)
    (into / "app.db").unlink()
    times = {name: (into / name).stat().st_mtime_ns for name in NAMES[1:]}
    counting = CountingStore(tenants.store)
    report = restore_all(store=counting, into=into)
    assert results(report) == dict.fromkeys(NAMES[1:], "complete") | {"app.db": "restored"}
    assert {name: (into / name).stat().st_mtime_ns for name in NAMES[1:]} == times
    snapshots = [key for method, key in counting.calls if method == "get" and "snapshots" in key]
    assert sum(key.startswith("x/y/z") for key in snapshots) < sum(
        key.startswith("app.db") for key in snapshots
    )


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_differs_is_replaced_only_on_demand(tenants, into, overwrite):
    """By one page, by a WAL, by its state, by its kind: all are kept and named without
    ``overwrite``, and none stops another database."""
    restore_all(store=tenants.store, into=into)
    with sqlite3.connect(into / "app.db") as db:
        db.execute("DELETE FROM t WHERE id = 1")
    db.close()
    (into / "tenants/a.db").write_bytes(b"notes")
    restore(
        store=tenants.store,
        prefix="tenants/b.db",
        output=into / "tenants/b.db",
        txid=2,
        overwrite=True,
    )
    before = {name: (into / name).read_bytes() for name in NAMES}
    report = restore_all(store=tenants.store, into=into, overwrite=overwrite)
    result = "restored" if overwrite else "failed"
    assert results(report) == dict.fromkeys(NAMES[:3], result) | {"x/y/z": "complete"}
    after = {name: (into / name).read_bytes() for name in NAMES}
    assert after == (dict.fromkeys(NAMES, tenants.newest) if overwrite else before)
    assert report.exit_code == (0 if overwrite else 7)
    assert set(codes(report).values()) <= {("TargetExists", "target_exists")}


def test_a_complete_file_with_a_wal_is_not_complete(tenants, into):
    """The WAL may hold transactions."""
    restore_all(store=tenants.store, into=into)
    (into / "app.db-wal").write_bytes(b"frames")
    assert codes(restore_all(store=tenants.store, into=into)) == {
        "app.db": ("TargetExists", "target_exists")
    }


def test_one_time_for_all(tenants, into, tmp_path):
    """Each has its last commit at or before it; one that began later is reported and is no
    failure; one whose archive no longer reaches so far is a gap. A second run finds all complete,
    also inside an object, where the archive holds no checksum."""
    (tmp_path / "late").mkdir()
    late = Tenants(tmp_path / "late", tenants.store, when=lambda txid: commit_ms(txid + 100))
    late.add("late.db")
    (tmp_path / "old").mkdir()
    old = Tenants(tmp_path / "old", tenants.store, when=lambda txid: commit_ms(txid + 100))
    old.built.store.delete(old.built.keys.wal(1))
    old.add("old.db")
    moment = to_text(commit_ms(2) + 3)
    report = restore_all(store=tenants.store, into=into, timestamp=moment)
    assert results(report) == dict.fromkeys(NAMES, "restored") | {
        "late.db": "not_yet",
        "old.db": "failed",
    }
    assert codes(report) == {"old.db": ("GapError", "outside_times")}
    assert (report.exit_code, report.moment_ms) == (4, commit_ms(2) + 3)
    assert {(into / name).read_bytes() for name in NAMES} == {tenants.built.images[2]}
    again = restore_all(store=tenants.store, into=into, timestamp=moment, only=["**/*.db", "x/**"])
    assert {each.result for each in again.databases if each.name in NAMES} == {"complete"}
    with raises(ConfigError, "out_of_bounds", setting="timestamp"):
        restore_all(store=tenants.store, into=into, timestamp="2999-01-01")


def test_one_name_for_all(tenants, into):
    """Each database has its own transaction of that name; one without it is a failure, and a txid
    is of one database alone."""
    for txid, name in ((2, NAMES[0]), (3, NAMES[1])):
        pin(tenants.store, Keys(name), PinnedPoint(txid, "", "release"))
    only = ["app.db", "tenants/*"]
    report = restore_all(store=tenants.store, into=into, at="release", only=only)
    assert results(report) == {NAMES[0]: "restored", NAMES[1]: "restored", NAMES[2]: "failed"}
    assert codes(report) == {NAMES[2]: ("ConfigError", "unknown_name")}
    for txid, name in ((2, NAMES[0]), (3, NAMES[1])):
        assert (into / name).read_bytes() == tenants.built.images[txid]
    moment = to_text(commit_ms(2))
    again = restore_all(store=tenants.store, into=into, at=moment, only=[NAMES[0]])
    assert results(again) == {NAMES[0]: "complete"}
    with raises(ConfigError, setting="at"):
        restore_all(store=tenants.store, into=into, at="2")


# ------------------------------------------------------------------------------ failures


def test_one_damaged_database_stops_no_other(tenants, into):
    """It is named with its code, its parts are no file, and the exit code is that of damage, which
    is worse than that of a file in the way."""
    tenants.spoil("tenants/a.db")
    into.mkdir(parents=True)
    (into / "app.db").write_bytes(b"mine")
    report = restore_all(store=tenants.store, into=into)
    assert {name: kind for name, (kind, _) in codes(report).items()} == {
        "app.db": "TargetExists",
        "tenants/a.db": "DamageError",
    }
    assert report.exit_code == 3
    assert files_below(into) == ["app.db", "tenants/b.db", "x/y/z"]
    assert (into / "app.db").read_bytes() == b"mine"


def test_a_database_without_a_backup_is_named(tenants, into):
    """A start that was killed between its first snapshot and its first segment: exit code 9."""
    tenants.add("new.db")
    for info in list(tenants.store.list("new.db/wal/")):
        tenants.store.delete(info.key)
    report = restore_all(store=tenants.store, into=into)
    assert codes(report) == {"new.db": ("NoBackup", "unconfirmed_snapshot")}
    assert (report.exit_code, report.counts["restored"]) == (9, 4)


def test_a_hostile_bucket_writes_nothing_elsewhere(tenants, into):
    """Names that leave the directory, belong to other databases or collide are refused and named;
    the others are restored."""
    hostile = (
        "..",
        "../../evil.db",
        "/etc/evil.db",
        "a//b.db",
        "line\nbreak.db",
        ".app.db.restoring",
        ".app.db-replicator/lock",
        "app.db-wal",
        "tenants/b.db/c.db",
    )
    tenants.add(*hostile)
    report = restore_all(store=tenants.store, into=into)
    assert set(codes(report)) == {*hostile, "tenants/b.db"}
    assert {code for _, code in codes(report).values()} == {"unsafe_name", "name_collision"}
    assert report.exit_code == 2
    assert files_below(into.parent.parent) == [
        *(f"new/into/{name}" for name in ("app.db", "tenants/a.db", "x/y/z")),
        "source/source.db",
    ]


def test_a_link_in_the_directory_is_not_followed(tenants, into, tmp_path):
    """A file behind it stays as it is, also with ``overwrite``."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    into.mkdir(parents=True)
    (into / "tenants").symlink_to(elsewhere)
    (elsewhere / "file").write_bytes(b"mine")
    (into / "app.db").symlink_to(elsewhere / "file")
    report = restore_all(store=tenants.store, into=into, overwrite=True)
    assert codes(report) == dict.fromkeys(NAMES[:3], ("UnsafePath", "link_below"))
    assert [path.name for path in elsewhere.iterdir()] == ["file"]
    assert (elsewhere / "file").read_bytes() == b"mine"


def test_a_store_that_fails_for_a_while_costs_time_alone(tenants, into):
    """Requests are repeated, and the listener gets the reason."""
    faulty = FaultyStore(tenants.store)
    for call in ("folders", "list", "get"):
        faulty.script(call, raising(StoreUnavailable("503")), nth=2, times=2)
    reasons = []
    report = restore_all(store=faulty, into=into, progress=lambda now: reasons.append(now.trouble))
    assert report.counts == {"restored": 4}
    assert "503" in reasons


def test_a_store_that_stays_away_is_not_asked_for_each_database(tenants, into):
    """After as many failures in a row as databases are restored at once, the others are not tried;
    the error has the reason. A later run restores them."""
    tenants.add(*(f"t{number:03}" for number in range(26)))
    store = HookedStore(tenants.store)
    away = threading.Event()

    def before(method, key):
        if away.is_set() and method != "folders":
            raise StoreUnavailable("no answer")

    store.before = before
    away.set()
    report = restore_set(store, into, limits=SetLimits(databases=4))
    assert (report.counts, report.exit_code) == ({"failed": 30}, 5)
    assert 4 <= sum(method == "list" for method, _ in store.calls) <= 8
    assert set(codes(report).values()) == {
        ("StoreUnavailable", "store_unavailable"),
        ("StoreUnavailable", "not_tried"),
    }
    away.clear()
    assert restore_set(store, into, limits=SetLimits(databases=4)).counts == {"restored": 30}


class SmallDisk(Files):
    """A disk with so many free bytes, as statvfs reports them; ``full`` refuses each write."""

    def __init__(self, free=1 << 40):
        self.free, self.full = free, False
        self.made = 0

    def disk_free(self, path):
        return self.free

    def system(self, call, /, *args, **kwargs):
        self.made += call.__name__ == "mkdir"
        if self.full and call.__name__ in ("pwrite", "pwritev", "write"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().system(call, *args, **kwargs)


def test_too_little_room_is_known_before_anything_is_written(tenants, into):
    """The sum of all, without what is complete and without the parts that are there already."""
    size = len(tenants.newest)
    with raises(DiskFull, path=str(into)):
        restore_set(tenants.store, into, files=SmallDisk(4 * size - 1))
    assert not into.exists()
    assert restore_set(tenants.store, into, files=SmallDisk(4 * size)).counts == {"restored": 4}
    (into / "app.db").unlink()
    assert restore_set(tenants.store, into, files=SmallDisk(size)).exit_code == 0


def test_files_that_are_replaced_need_room_only_while_both_exist(tenants, into):
    """One at a time here: one size is enough for four."""
    for name in NAMES:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(bytes(len(tenants.newest)))
    files, limits = SmallDisk(len(tenants.newest)), SetLimits(databases=1)
    report = restore_set(tenants.store, into, files=files, limits=limits, overwrite=True)
    assert report.counts == {"restored": 4}
    assert report.needed_bytes == len(tenants.newest)


def test_a_disk_that_fills_ends_the_rest(tenants, into):
    """Each failure is named; those that were not tried as well; a run with room completes all."""
    tenants.add(*(f"t{number:02}" for number in range(20)))
    files, limits = SmallDisk(), SetLimits(databases=2)
    files.full = True
    report = restore_set(tenants.store, into, files=files, limits=limits)
    assert (report.counts, report.exit_code) == ({"failed": 24}, 7)
    assert {code for _, code in codes(report).values()} == {"disk_full", "not_tried"}
    assert not [path for path in into.rglob("*.db") if path.is_file()]
    files.full = False
    assert restore_set(tenants.store, into, files=files, limits=limits).exit_code == 0


def test_a_dry_run_writes_nothing(tenants, into):
    """It makes no directory, and reports what the restore would refuse."""
    told = []
    report = restore_all(store=tenants.store, into=into, dry_run=True, progress=told.append)
    assert (report.counts, report.exit_code) == ({"planned": 4}, 0)
    assert report.needed_bytes == 4 * len(tenants.newest)
    assert sum(now.ended is not None for now in told) == 4
    assert {each.report.size for each in report.databases} == {len(tenants.newest)}
    assert not into.parent.exists()
    into.mkdir(parents=True)
    (into / "app.db").write_bytes(b"mine")
    files = SmallDisk(1)
    report = restore_set(tenants.store, into, files=files, dry_run=True)
    assert (report.counts, report.free_bytes) == ({"planned": 3, "failed": 1}, 1)
    assert files_below(into) == ["app.db"]


# ------------------------------------------------------------------------------ many at once


def test_the_work_under_way_is_bounded(tenants, into):
    """At most the threads of two restores ask at once, and at most so many databases are open,
    whatever their number."""
    tenants.add(*(f"t{number:03}" for number in range(16)))
    lock, under_way, most = threading.Lock(), [], []

    class Gauge(HookedStore):
        def _call(self, method, key, *args, **options):
            with lock:
                under_way.append(key)
                most.append(len(under_way))
            try:
                return super()._call(method, key, *args, **options)
            finally:
                with lock:
                    under_way.remove(key)

    limits = SetLimits(databases=4, each=RecoveryLimits(threads=4))
    report = restore_set(Gauge(tenants.store), into, limits=limits)
    assert report.counts == {"restored": 20}
    assert max(most) <= 16  # the search alone has so many


@pytest.mark.parametrize("count", [1, 2, 8, 100])
def test_several_restores_share_the_memory_of_two(count):
    """The limits of each, times the number of those at once, are at most twice those of one."""
    one, limits = RecoveryLimits(), SetLimits()
    each, at_once = limits.of_one(count), min(count, limits.databases)
    for name in ("window_bytes", "in_memory_bytes", "group_raw_bytes", "threads"):
        assert at_once * getattr(each, name) <= max(2, min(3, at_once)) * getattr(one, name)


def test_an_interruption_ends_soon_and_leaves_whole_files(tenants, into):
    """An exception in the caller's thread, as Ctrl-C is: no further database begins, and each file
    that has its name is whole."""
    tenants.add(*(f"t{number:03}" for number in range(16)))
    seen = []

    def interrupted(now):
        if now.ended is not None:
            seen.append(now.ended.name)
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Cancelled)):
        restore_set(tenants.store, into, progress=interrupted, limits=SetLimits(databases=2))
    assert 1 <= len(seen) <= 3
    made = [path for path in into.rglob("*") if path.is_file() and ".restoring" not in str(path)]
    images = {path.read_bytes() for path in made if path.name != "restored.json"}
    assert images <= {tenants.newest}
    assert restore_set(tenants.store, into).exit_code == 0


def test_progress_counts_databases_and_bytes(tenants, into):
    """Phases in order; the last figures are the totals; each outcome is reported once."""
    told = []
    tenants.spoil("x/y/z")
    restore_all(store=tenants.store, into=into, progress=told.append)
    phases = list(dict.fromkeys(now.phase for now in told))
    assert phases == ["plan", "restore"]
    last = told[-1]
    assert (last.done, last.total, last.failed) == (3, 3, 1)
    assert 0 < last.done_bytes <= last.total_bytes
    ended = [now.ended.name for now in told if now.ended is not None]
    assert sorted(ended) == sorted(NAMES)


def test_the_order_of_the_exit_codes_names_each_once():
    """Every exit code of an error has its place."""
    from replicator import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    known = {kind.exit_code for kind in kinds if issubclass(kind, errors.ReplicatorError)}
    assert sorted(SEVERITY) == sorted({*known, 0})


# ------------------------------------------------------------------------------- the file


def test_the_databases_of_a_file(source_directory, directory_store, tmp_path, into):
    """Those with an entry, those that a pattern names in the bucket, and no other one; each has its
    whole prefix as its path. A bucket that cannot be searched is a failure of its entry alone."""
    Tenants(source_directory, directory_store, "shop/orders.db", "shop/a.db", "shop/a.txt", "b.db")
    url = f"file://{tmp_path}/store"
    (tmp_path / "r.toml").write_text(
        f'url = "{url}"\nprefix = "shop"\n[[database]]\npath = "orders.db"\n'
        '[[database]]\npath = "tenants/*.db"\n'
        f'[[database]]\npath = "other/*.db"\nurl = "file://{tmp_path}/gone"\n'
    )
    report = restore_all(into=into, config=tmp_path / "r.toml")
    found = results(report)
    (failed,) = [name for name, result in found.items() if result == "failed"]
    assert "other/*.db" in failed
    del found[failed]
    assert found == {"shop/a.db": "restored", "shop/orders.db": "restored"}
    assert files_below(into) == ["shop/a.db", "shop/orders.db"]


# ---------------------------------------------------------------------------- another user


@needs_root
def test_root_follows_no_directory_that_another_user_can_exchange(tenants, into):
    """In his directory root restores what is directly in it, and gives it to him; a directory in
    it could lead root elsewhere by then."""
    into.mkdir(parents=True)
    os.chown(into, APP, APP)
    report = restore_all(store=tenants.store, into=into)
    assert codes(report) == dict.fromkeys(NAMES[1:], ("UnsafePath", "unsafe_path"))
    assert (into / "app.db").read_bytes() == tenants.newest
    assert (into / "app.db").stat().st_uid == APP
    assert files_below(into) == ["app.db"]
