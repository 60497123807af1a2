"""replicator.verify.monitor and present: drills on time, and a present that can be restored."""

import threading
from dataclasses import replace

import pytest

from replicator.archive.index import SnapshotObject, WalObject
from replicator.archive.keys import Keys
from replicator.archive.records import (
    DAMAGED,
    FAILED,
    PROVEN,
    REPAIRED,
    add_record,
    list_records,
    unresolved_failure,
)
from replicator.errors import (
    Cancelled,
    DamageError,
    GapError,
    NewerFormat,
    NoBackup,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.format.object_header import ObjectFacts
from replicator.format.segment import SegmentEncoder, decode_segment
from replicator.metrics import Metrics
from replicator.model import DatabaseState, Kind
from replicator.store.retry import RetryPolicy
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.mailbox import Mailbox, Request, Wanted
from replicator.system.scheduler import Scheduler
from replicator.upload.watermark import Watermark
from replicator.verify.latest import _require_link, verify_latest
from replicator.verify.monitor import DrillRule, Monitor
from tests.helpers.errors import raises
from tests.helpers.newer_format import upgrade
from tests.helpers.replication import HookedStore, wait_for
from tests.helpers.strange_schema import statements

KEYS = Keys("app.db")
LONG = 60
AT_ONCE = 0.01  # seconds until failed work runs again


class CountingWatermark(Watermark):
    """Each round of the monitor reads it."""

    reads = 0

    @property
    def txid(self):
        self.reads += 1
        return super().txid


LOCAL = Files()


class Rig:
    """A monitor over a bucket; the test plays the thread that answers its requests."""

    def __init__(self, bucket, tmp_path, *, files=LOCAL, **rule):
        self.bucket = bucket
        self.store = HookedStore(bucket.store)
        self.metrics = Metrics()
        self.asked = []
        self.watermark = CountingWatermark("memory://", bucket.txid)
        self.snapshot = self.start_over = lambda: None
        self.scheduler = Scheduler("monitor")
        self.mailbox = AnsweringMailbox(self._answer)
        self.monitor = Monitor(
            self.store,
            KEYS,
            self.watermark,
            self.mailbox,
            self.metrics,
            DrillRule(again=AT_ONCE, **rule),
            self.scheduler,
            scratch=tmp_path / "scratch",
            files=files,
        )

    def _answer(self, request):
        whole = request.wanted is Wanted.WHOLE_SNAPSHOT
        self.asked.append("snapshot" if whole else "generation")
        done = self.snapshot if whole else self.start_over
        done()
        self.watermark.change(durable_txid=self.bucket.txid)
        return self.bucket.txid

    def stop(self):
        self.monitor.stop()
        self.scheduler.stop()

    def __enter__(self):
        self.monitor.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def outcomes(self):
        return [each.outcome for each in list_records(self.bucket.store, KEYS)]


class AnsweringMailbox(Mailbox):
    """Answers each request at once."""

    def __init__(self, answer):
        super().__init__()
        self._answer = answer

    def ask(self, wanted, reason=""):
        request = Request(wanted, reason)
        try:
            request.set_result(self._answer(request))
        except Exception as error:  # noqa: BLE001 - as the thread would
            request.set_exception(error)
        return request


def spoil(store, key):
    info, body = store.head(key), store.get(key)
    middle = len(body) // 2
    spoilt = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
    store.put(key, spoilt, metadata=info.metadata, if_absent=False)


def last_segment(bucket):
    return [info.key for info in bucket.store.list(bucket.keys.wal_dir)][-1]


# ------------------------------------------------------------------------------- present


def test_a_sound_present_is_proved_without_a_disk(bucket):
    """Exactly the objects of a restore's plan are read, each to its end."""
    store = HookedStore(bucket.store)
    assert verify_latest(store, "app.db", at_least=bucket.txid) == bucket.txid
    bodies = {key for key in store.keys("get") if "/wal/" in key}
    assert bodies <= {bucket.keys.wal(15), bucket.keys.wal(16)}


def test_every_harm_to_the_present_is_found_and_no_other(bucket):
    """Objects the newest restore needs are named; harm to the past is none of its business."""
    needed = {bucket.keys.wal(15), bucket.keys.wal(16), bucket.keys.snapshot(14, bucket.generation)}
    for key in bucket.objects():
        info, body = bucket.store.head(key), bucket.store.get(key)
        spoil(bucket.store, key)
        if key in needed:
            with pytest.raises(DamageError) as caught:
                verify_latest(bucket.store, "app.db")
            assert caught.value.key == key
        else:
            assert verify_latest(bucket.store, "app.db") == bucket.txid
        bucket.store.put(key, body, metadata=info.metadata, if_absent=False)


def test_a_present_behind_what_was_acknowledged_is_a_gap(bucket):
    """A tail that vanished leaves no trace in the bucket, but the replicator knows."""
    bucket.store.delete(last_segment(bucket))
    with raises(GapError, "beyond_end", first_missing=16, last_missing=17):
        verify_latest(bucket.store, "app.db", at_least=17)
    with pytest.raises(NoBackup):
        verify_latest(type(bucket.store)(), "app.db")


def test_a_segment_that_does_not_continue_is_found(bucket):
    """Two histories of one generation: each object is sound by itself."""
    other = bucket.keys.wal(16)
    body = bucket.store.get(other)
    bucket.insert(5)
    cut = bucket.cut()
    later, metadata = bucket.store.get(cut), bucket.store.head(cut).metadata
    bucket.store.delete(cut)
    bucket.store.delete(other)
    bucket.store.put(bucket.keys.wal(16), later, metadata=metadata)
    with pytest.raises(DamageError):
        verify_latest(bucket.store, "app.db")
    bucket.store.put(other, body, if_absent=False)
    assert verify_latest(bucket.store, "app.db") == 17


def test_objects_without_metadata_are_learnt_from_their_bytes(empty_bucket):
    """A plan that turns out wrong is made again with what was read."""
    for _ in range(3):
        empty_bucket.insert()
        empty_bucket.insert()
        empty_bucket.cut(metadata=False)
    empty_bucket.snapshot(metadata=False)
    empty_bucket.insert()
    empty_bucket.cut(metadata=False)
    assert verify_latest(empty_bucket.store, "app.db") == empty_bucket.txid


# --------------------------------------------------------------------------------- repair


def test_a_sound_present_needs_no_repair(bucket, tmp_path):
    """It reports so without a request, and the note cures what was suspected."""
    add_record(bucket.store, KEYS, DAMAGED, 5, 1000, {})
    with Rig(bucket, tmp_path) as rig:
        wait_for(lambda: REPAIRED in rig.outcomes())
        answer = rig.monitor.suspect("a doubt").result(LONG)
    assert (answer.action, answer.txid, answer.reason) == ("none", 17, "a doubt")
    assert (rig.asked, rig.metrics.get("repairs")) == ([], 0)
    assert unresolved_failure(list_records(bucket.store, KEYS)) is None


def test_a_snapshot_is_tried_first(bucket, tmp_path):
    """It is proved afterwards, and that was all."""
    bucket.insert()
    bucket.cut()
    spoil(bucket.store, bucket.keys.wal(15))
    rig = Rig(bucket, tmp_path)
    rig.snapshot = bucket.snapshot
    with rig:
        answer = rig.monitor.suspect("verify found damage").result(LONG)
    assert (answer.action, rig.asked, rig.metrics.get("repairs")) == ("snapshot", ["snapshot"], 1)
    assert rig.monitor.health.error is None
    assert verify_latest(bucket.store, "app.db") == bucket.txid


def test_where_a_snapshot_does_not_do_a_generation_is_begun(bucket, tmp_path):
    """The newest segment is damaged, and a snapshot is not to be had for the same txid."""
    spoil(bucket.store, last_segment(bucket))
    rig = Rig(bucket, tmp_path)
    rig.start_over = bucket.start_generation
    with rig:
        answer = rig.monitor.suspect("x").result(LONG)
    assert (answer.action, rig.asked) == ("generation", ["snapshot", "generation"])
    assert answer.txid == bucket.txid == 18


def test_what_nothing_mends_is_trouble_and_is_tried_again(bucket, tmp_path):
    """The caller gets the error; the status has it too; the next round may succeed."""
    body, key = bucket.store.get(last_segment(bucket)), last_segment(bucket)
    spoil(bucket.store, key)
    rig = Rig(bucket, tmp_path)
    with rig:
        with pytest.raises(DamageError):
            rig.monitor.suspect("x").result(LONG)
        wait_for(lambda: rig.monitor.health.error is not None)
        bucket.store.put(key, body, if_absent=False)
        wait_for(lambda: REPAIRED in rig.outcomes())
    assert rig.monitor.health.error is None


def test_an_object_that_vanishes_for_good_is_trouble_too(bucket, tmp_path):
    """Listed, and never there: as bad as damaged."""
    rig = Rig(bucket, tmp_path)
    key = last_segment(bucket)

    def before(method, name):
        if method == "get" and name == key:
            raise ObjectMissing(name)

    rig.store.before = before
    rig.start_over = bucket.start_generation
    with rig:
        assert rig.monitor.suspect("x").result(LONG).action == "generation"


def test_a_suspicion_during_a_repair_gets_a_proof_of_its_own(bucket, tmp_path):
    """What the repair read may be older than the damage that is suspected now."""
    with Rig(bucket, tmp_path) as rig:
        later = []

        def before(method, key):
            if method == "put" and "proofs/" in key and not later:
                later.append(rig.monitor.suspect("the second"))

        rig.store.before = before
        assert rig.monitor.suspect("the first").result(LONG).reason == "the first"
        assert later[0].result(LONG).reason == "the second"
    assert len(rig.store.keys("put")) == 2


def test_a_store_that_is_away_only_delays(bucket, tmp_path):
    """The notes are read, and the repair made, once it is back."""
    rig = Rig(bucket, tmp_path, retries=RetryPolicy(deadline=0.0))
    rig.store.go_away()
    with rig:
        with pytest.raises(StoreUnavailable):
            rig.monitor.suspect("x").result(LONG)
        rig.store.come_back()
        wait_for(lambda: REPAIRED in rig.outcomes())


def test_a_defect_does_not_end_the_monitor(bucket, tmp_path):
    """The caller gets the error; the next one is served."""
    rig = Rig(bucket, tmp_path)
    spoil(bucket.store, last_segment(bucket))

    def broken():
        raise ZeroDivisionError

    rig.snapshot = broken
    with rig:
        with raises(ReplicatorError, "defect"):
            rig.monitor.suspect("x").result(LONG)
        rig.snapshot, rig.start_over = (lambda: None), bucket.start_generation
        wait_for(lambda: REPAIRED in rig.outcomes())


def test_stopping_ends_what_is_under_way(bucket, tmp_path):
    """A call that hangs in the store's place is not waited for twice; who asks is refused."""
    rig = Rig(bucket, tmp_path)
    inside, go = threading.Event(), threading.Event()

    def before(method, key):
        if method == "get":
            inside.set()
            go.wait(LONG)
            raise StoreUnavailable("away")

    rig.store.before = before
    rig.monitor.start()
    request = rig.monitor.suspect("x")
    inside.wait(LONG)
    ending = threading.Thread(target=rig.stop)
    ending.start()
    rig.monitor._stopping.wait(LONG)
    go.set()
    ending.join(LONG)
    with pytest.raises(Cancelled):
        request.result(LONG)
    with pytest.raises(Cancelled):
        rig.monitor.suspect("too late").result(LONG)


def test_a_monitor_that_was_never_started_can_be_stopped(bucket, tmp_path):
    """Stopping a monitor that never started has no effect."""
    Rig(bucket, tmp_path).stop()


# --------------------------------------------------------------------------------- drills


def test_the_first_drill_comes_at_once_and_an_idle_database_is_left_in_peace(bucket, tmp_path):
    """One drill proves the newest transaction; until another is durable, no request is made,
    however often it is due."""
    rig = Rig(bucket, tmp_path, interval=0.001, bandwidth=0)
    (tmp_path / "scratch" / "left-over").mkdir(parents=True)
    with rig:
        wait_for(lambda: rig.monitor.proven is not None)
        wait_for(lambda: not list((tmp_path / "scratch").iterdir()))
        calls = len(rig.store.calls)
        reads = rig.watermark.reads
        wait_for(lambda: rig.watermark.reads > reads + 20)
        assert len(rig.store.calls) == calls
        bucket.insert()
        bucket.cut()
        rig.watermark.change(durable_txid=bucket.txid)
        wait_for(lambda: rig.monitor.proven.txid == bucket.txid)
    assert rig.metrics.get("drills") == 2
    assert rig.metrics.get("last_verified_txid") == bucket.txid
    assert rig.outcomes() == [PROVEN, PROVEN]


def test_nothing_is_drilled_before_something_is_durable(bucket, tmp_path):
    """Nor is anything repaired."""
    rig = Rig(bucket, tmp_path, interval=0.001)
    rig.watermark.change(durable_txid=0)
    with rig:
        wait_for(lambda: rig.watermark.reads > 20)
    assert rig.metrics.get("drills") == 0


def test_the_newest_proof_in_the_bucket_is_known_at_the_start(bucket, tmp_path):
    """By one listing; a drill is due only when the interval since then is over."""
    add_record(bucket.store, KEYS, PROVEN, 12, clock.now_ms(), {})
    rig = Rig(bucket, tmp_path, interval=3600)
    with rig:
        wait_for(lambda: rig.monitor.proven is not None)
    assert rig.monitor.proven.txid == 12
    assert rig.store.calls == [("list", "app.db/proofs/")]


def test_a_drill_that_fails_leads_to_a_repair(bucket, tmp_path):
    """Damage is noted, the present healed, and the next drill proves it."""
    spoil(bucket.store, last_segment(bucket))
    rig = Rig(bucket, tmp_path, interval=0.001)
    rig.start_over = bucket.start_generation
    with rig:
        wait_for(lambda: rig.monitor.proven is not None)
    assert rig.monitor.proven.txid == bucket.txid == 18
    assert rig.asked == ["snapshot", "generation"]
    assert rig.outcomes() == [FAILED, REPAIRED, PROVEN]
    assert rig.metrics.get("failed_drills") == 1
    names = [event.name for event in rig.mailbox.events.after(0, 0.0)]
    assert names == ["drill_failed", "unrestorable", "unrestorable", "drill_passed"]


def test_a_drill_without_room_is_no_trouble_of_the_backup(bucket, tmp_path):
    """It is counted and tried again; nothing is repaired."""

    class Full(Files):
        def disk_free(self, path):
            return 0

    rig = Rig(bucket, tmp_path, interval=0.001, files=Full())
    with rig:
        wait_for(lambda: rig.metrics.get("failed_drills") > 1)
    assert (rig.asked, rig.monitor.health.error, rig.outcomes()) == ([], None, [])


# ---------------------------------------------------------------------------------- links


def rewritten(bucket, key, **changes):
    """A log object with another header or trailer, sound in itself, its metadata to match."""
    summary, payload = decode_segment(bucket.store.get(key), key)
    header, trailer = summary.header, summary.trailer
    header = replace(header, generation=changes.pop("generation", header.generation))
    encoder = SegmentEncoder(header, level=3)
    body = encoder.start() + encoder.write(payload)
    state = DatabaseState(trailer.pages, trailer.checksum_after)
    rest, made = encoder.finish(
        last_txid=trailer.last_txid,
        state=state,
        commit_frames=trailer.commit_frames,
        before=changes.pop("before", trailer.checksum_before),
        commit_times_ms=trailer.commit_times_ms,
    )
    bucket.store.put(key, body + rest, metadata=made.metadata(), if_absent=False)


def test_checksums_must_lead_from_object_to_object(bucket):
    """One that begins with another database than the one before ends with is named."""
    rewritten(bucket, bucket.keys.wal(16), before=1)
    with raises(DamageError, "discontinuous", key="app.db/wal/0000000000000010.wal.zst") as caught:
        verify_latest(bucket.store, "app.db")
    assert caught.value.key == bucket.keys.wal(16)


def test_a_foreign_generation_in_the_present_is_a_gap_or_named(bucket):
    """A restore would not apply it either."""
    rewritten(bucket, bucket.keys.wal(16), generation="00000000-0000-7000-8000-00000000000f")
    with pytest.raises((DamageError, GapError)):
        verify_latest(bucket.store, "app.db")


def test_only_what_is_known_wrong_is_taken_for_linked():
    """Two objects of two generations are not linked, whatever else fits."""
    snapshot = SnapshotObject("s", 4, "one", 1)
    item = WalObject("w", 0, 5, 6, 1)
    facts = ObjectFacts(Kind.SEGMENT, "two", 5, 6, 4096, 1, 7, 8, 0, 0, 0, "", "")
    with raises(DamageError, key="w"):
        _require_link(snapshot, item, facts, 4, 7)


def test_a_drill_that_cannot_check_all_keeps_the_database_healthy(bucket, tmp_path):
    """An inconclusive drill is a proof: nothing is repaired, and nothing is recorded as failed."""
    bucket.run(*statements("view"))
    bucket.cut()
    with Rig(bucket, tmp_path, interval=0.001) as rig:
        wait_for(lambda: rig.monitor.proven)
        assert (rig.monitor.health.state, rig.asked) == ("restorable", [])
    assert set(rig.outcomes()) == {PROVEN}


def test_a_newer_format_is_not_repaired(bucket, tmp_path):
    """An older program must not begin a new generation because it cannot read the archive."""
    upgrade(bucket.store, last_segment(bucket))
    with Rig(bucket, tmp_path, interval=0.001) as rig:
        request = rig.monitor.suspect("asked")
        with pytest.raises(NewerFormat):
            request.result(LONG)
        assert (rig.monitor.health.state, rig.asked, rig.outcomes()) == ("restorable", [], [])
