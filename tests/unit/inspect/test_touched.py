"""The tables that a commit touched: against a full walk of every state, and in few requests."""

import json
import random
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.archive.point import RestorePoint
from replicator.archive.timespec import to_text
from replicator.errors import ConfigError, DamageError
from replicator.format.segment import decode_segment
from replicator.format.wal import parse_header, scan
from replicator.inspect.owners import Owners
from replicator.inspect.transactions import Span, span_of, touching, transactions
from replicator.store.directory import DirectoryStore
from tests.helpers.bucket import BucketBuilder, commit_ms, plain_state
from tests.helpers.errors import raises
from tests.helpers.page_owners import owners
from tests.helpers.replication import HookedStore
from tests.plugins.scoreboard import effort

SCHEMA = "sqlite_schema"
TABLES = (
    "CREATE TABLE a(id INTEGER PRIMARY KEY, n INT, body BLOB)",
    "CREATE INDEX a_n ON a(n DESC, body)",
    "CREATE TABLE b(k TEXT COLLATE NOCASE PRIMARY KEY, v BLOB) WITHOUT ROWID",
    "CREATE TABLE c(x, y)",
    "CREATE INDEX c_y ON c(y COLLATE RTRIM, x)",
)


def change(chance):
    """One random statement."""
    n = chance.randrange(400)
    size = chance.choice([10, 100, 900, 6000, 30_000])
    word = "".join(chance.choice("aAbBcC é") for _ in range(chance.randrange(1, 12)))
    return chance.choice(
        [
            f"INSERT INTO a(n, body) SELECT value % 7, randomblob({size}) FROM g LIMIT {n // 20}",
            f"INSERT OR REPLACE INTO a VALUES ({n}, {n % 5}, randomblob({size}))",
            f"UPDATE a SET n = n + 1 WHERE id % 9 = {n % 9}",
            f"DELETE FROM a WHERE id % 5 = {n % 5}",
            "DELETE FROM a",
            f"INSERT OR REPLACE INTO b SELECT '{word}' || value, randomblob({size}) FROM g LIMIT 9",
            f"UPDATE b SET v = randomblob({size}) WHERE k > '{word}'",
            f"DELETE FROM b WHERE k < '{word}'",
            f"INSERT INTO c SELECT value - 200, '{word}' || randomblob(9) FROM g LIMIT {n}",
            f"UPDATE c SET x = x * 1.5 WHERE rowid % 11 = {n % 11}",
            f"DELETE FROM c WHERE rowid % 3 = {n % 3}",
            f"CREATE TABLE IF NOT EXISTS d{n % 3}(x{n} DEFAULT '{word * 400}')",
            f"DROP TABLE IF EXISTS d{n % 3}",
        ]
    )


def built(directory, seed, *, page_size=512, auto_vacuum=False, store=None):
    chance = random.Random(seed)
    bucket = BucketBuilder(directory, store, page_size=page_size, auto_vacuum=auto_vacuum)
    numbers = ", ".join(f"({n})" for n in range(400))
    bucket.run(*TABLES, "CREATE TABLE g(value)", f"INSERT INTO g VALUES {numbers}")
    for step in range(40):
        before = bucket._db.total_changes, bucket._log()
        bucket._db.execute(change(chance))
        if bucket._log() != before[1]:
            bucket.txid += 1
            bucket.images[bucket.txid] = plain_state(bucket._base, bucket._log())
            if step % 3 == 0:
                bucket.cut()
            if step % 20 == 19:
                if bucket.first <= bucket.txid:
                    bucket.cut()
                bucket.snapshot()
    if bucket.first <= bucket.txid:
        bucket.cut()
    return bucket


def roots_of(image, directory):
    path = directory / "state.db"
    path.write_bytes(image)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        rows = db.execute("SELECT rootpage, tbl_name FROM sqlite_schema WHERE rootpage").fetchall()
    db.close()
    return {1: SCHEMA} | dict(rows)


def written(bucket):
    """{txid: pages that its frames have}, from the objects."""
    found = {}
    for info in bucket.store.list(bucket.keys.wal_dir):
        summary, wal = decode_segment(bucket.store.get(info.key), info.key)
        if not summary.trailer.commit_frames:
            continue
        frames, at = scan(wal[32:], parse_header(wal[:32]).start()), 0
        for txid, count in enumerate(summary.trailer.commit_frames, summary.header.first_txid):
            found[txid] = set(frames.pages[at : at + count].tolist())
            at += count
    return found


@pytest.mark.parametrize("seed", range(effort(1, 60)))
@pytest.mark.parametrize("auto_vacuum", [False, True])
def test_every_table_is_found_and_no_other(tmp_path, seed, auto_vacuum):
    """As a full walk of the state after each commit gives it. A page without a known owner is
    counted, and only then a table may be missing."""
    bucket = built(tmp_path, seed, auto_vacuum=auto_vacuum)
    pages, unknown = written(bucket), 0
    rows = [row for row in touching(bucket.store, "app.db", scratch=tmp_path) if row.tables]
    assert [row.txid for row in rows] == sorted(pages, reverse=True)
    for row in rows:
        image = bucket.images[row.txid]
        every = owners(image, roots_of(image, tmp_path), 512)
        changed = pages[row.txid] - {1}  # which has the header as well, written with it or alone
        wanted = {every[page] for page in changed if page in every}
        missing = wanted - set(row.tables)
        assert len([page for page in changed if every.get(page) in missing]) <= row.unknown_pages
        if set(row.tables) - wanted:  # a table came or went, or the schema is on page 1 alone
            assert SCHEMA in row.tables
            assert 1 in pages[row.txid]
        unknown += row.unknown_pages
    assert unknown <= (0 if auto_vacuum else len(rows) // 4)


@pytest.mark.parametrize("seed", range(effort(1, 20)))
def test_a_part_is_as_the_whole(tmp_path, seed):
    """From any transaction on, over merges that keep each transaction and over those that keep one
    step before it, the tables are those of the whole walk."""
    bucket = built(tmp_path, 1000 + seed)
    whole = {
        row.txid: (row.tables, row.unknown_pages)
        for row in touching(bucket.store, "app.db", scratch=tmp_path)
    }
    firsts = [int(key.split("/")[-1][:16], 16) for key in bucket.objects() if "/wal/" in key]
    bucket.merge_newest(firsts[1], firsts[3] - 1)
    bucket.merge(firsts[3], firsts[5] - 1, drop=True)
    for first in (firsts[4] + 1, firsts[-1], bucket.txid):
        rows = list(touching(bucket.store, "app.db", Span(first), scratch=tmp_path))
        found = {row.txid: (row.tables, row.unknown_pages) for row in rows}
        assert found == {txid: each for txid, each in whole.items() if txid >= first}


# --------------------------------------------------------------------------------- by hand


def tables_of(bucket, tmp_path, **options):
    """{txid: tables} of the rows, newest first."""
    found = touching(bucket.store, "app.db", scratch=tmp_path, **options)
    return {row.txid: row.tables for row in found}


@pytest.fixture
def two_tables(empty_bucket):
    """Transactions 2 to 6 in two objects: t is created, c is created, c, t, c."""
    empty_bucket.run("INSERT INTO t(body) VALUES (1)")
    empty_bucket.run("CREATE TABLE c(x)")
    empty_bucket.cut()
    empty_bucket.run("INSERT INTO c VALUES (1)")
    empty_bucket.run("DELETE FROM t")
    empty_bucket.run("UPDATE c SET x = 2")
    empty_bucket.cut()
    return empty_bucket


def test_the_commits_of_a_table(two_tables, tmp_path):
    """Newest first, with the schema's own; the start of a generation may have changed anything."""
    every = {6: ("c",), 5: ("t",), 4: ("c",), 3: ("c", SCHEMA), 2: ("t",), 1: None}
    assert tables_of(two_tables, tmp_path) == every
    assert list(tables_of(two_tables, tmp_path)) == [6, 5, 4, 3, 2, 1]
    assert list(tables_of(two_tables, tmp_path, table="C")) == [6, 4, 3, 1]
    assert list(tables_of(two_tables, tmp_path, table="c", limit=2)) == [6, 4]
    assert list(tables_of(two_tables, tmp_path, span=Span(3, 5))) == [5, 4, 3]
    assert list(tables_of(two_tables, tmp_path, table="t", span=Span(3, 6))) == [5]
    assert list(tmp_path.iterdir()) == [tmp_path / "source"]
    with raises(ConfigError, "unknown_table", setting="table"):
        tables_of(two_tables, tmp_path, table="other", span=Span(2, 6))


def test_merges_steps_and_generations(two_tables, tmp_path):
    """A merge shows each of its commits, a step all of its tables; each generation begins anew."""
    two_tables.merge(2, 6)
    before = tables_of(two_tables, tmp_path)
    for first in (2, 4):
        two_tables.store.delete(two_tables.keys.wal(first))
    assert tables_of(two_tables, tmp_path) == before
    two_tables.start_generation()
    two_tables.run("DELETE FROM c")
    two_tables.cut()
    two_tables.run("DROP TABLE c")
    two_tables.run("INSERT INTO t(body) VALUES (2)")
    two_tables.squash()
    assert tables_of(two_tables, tmp_path, span=Span(6)) == {
        10: ("c", SCHEMA, "t"),
        8: ("c",),
        7: None,
        6: ("c",),
    }


def test_a_hole_leaves_the_rest_unknown_until_a_snapshot(two_tables, tmp_path):
    """Nothing is guessed: behind a hole no state is known, so each commit counts as possible."""
    two_tables.run("INSERT INTO c VALUES (7)")
    two_tables.cut()
    two_tables.snapshot()
    two_tables.run("INSERT INTO c VALUES (8)")
    two_tables.cut()
    two_tables.store.delete(two_tables.keys.wal(4))
    assert tables_of(two_tables, tmp_path, table="t") == {7: None, 6: None, 2: ("t",), 1: None}


def test_damage_is_an_error(two_tables, tmp_path):
    """An object whose bytes are not those that were written answers nothing."""
    key = two_tables.keys.wal(4)
    body = bytearray(two_tables.store.get(key))
    body[len(body) // 2] ^= 1
    two_tables.store.put(key, bytes(body), if_absent=False)
    with pytest.raises(DamageError):
        tables_of(two_tables, tmp_path)


def test_shadow_tables_name_the_virtual_table(empty_bucket, tmp_path):
    """A search by the name that the application uses finds its commits."""
    empty_bucket.run("CREATE VIRTUAL TABLE docs USING fts5(text)")
    empty_bucket.run("INSERT INTO docs VALUES ('a word')")
    empty_bucket.cut()
    tables = tables_of(empty_bucket, tmp_path, table="docs")
    assert "docs" in tables[3]
    assert {"docs_content", "docs_data"} <= set(tables[3])


def test_a_chain_changed_in_place_is_counted(empty_bucket, tmp_path):
    """SQLite writes an overflow page alone if the rest of the row stays: the owner is not on any
    way from a root, so the commit may have touched each table."""
    empty_bucket.run("CREATE TABLE c(x)", "INSERT INTO c VALUES (zeroblob(20000))")
    empty_bucket.cut()
    empty_bucket.run("UPDATE c SET x = CAST(zeroblob(19000) || randomblob(1000) AS BLOB)")
    empty_bucket.cut()
    (row,) = touching(empty_bucket.store, "app.db", Span(3), table="t", scratch=tmp_path)
    assert (row.tables, row.unknown_pages) == ((), 1)


def test_a_question_reads_no_database(tmp_path):
    """Of a snapshot with hundreds of blocks those that lead to the pages, each in one request."""
    store = HookedStore()
    bucket = BucketBuilder(tmp_path, store)
    bucket.insert(30_000, 900)
    bucket.start_generation()
    bucket.run("UPDATE t SET body = 1 WHERE id = 1234")
    bucket.cut()
    (snapshot,) = [i for i in store.list("app.db/snapshots/") if f"{3:016x}-" in i.key]
    store.calls.clear()
    rows = list(touching(store, "app.db", Span(4), table="t", scratch=tmp_path))
    assert [row.tables for row in rows] == [("t",)]
    assert snapshot.size > 25 << 20
    assert len([key for key in store.keys("get") if key == snapshot.key]) <= 6


# ----------------------------------------------------------------------------- since and until


def test_bounds_are_times_txids_or_names(two_tables):
    """A commit at the very millisecond of a bound is inside."""

    def span(since=None, until=None):
        points = [RestorePoint.parse(each) if each else RestorePoint() for each in (since, until)]
        return span_of(two_tables.store, "app.db", *points)

    def listed(span):
        return [row.txid for row in transactions(two_tables.store, "app.db", span)]

    at = {txid: to_text(commit_ms(txid)) for txid in range(1, 7)}
    later = to_text(commit_ms(4) + 1)
    assert listed(span(at[3], at[5])) == [5, 4, 3]
    assert listed(span(later, at[5])) == [5]
    assert listed(span(since=later)) == [6, 5]
    assert listed(span(until=later)) == [4, 3, 2, 1]
    assert listed(span("1999-01-01", "now")) == [6, 5, 4, 3, 2, 1]
    assert listed(span(until="1999-01-01")) == []
    assert listed(span(since="now")) == []
    assert listed(span("2", "4")) == [4, 3, 2]


def test_a_bound_saves_the_requests_of_other_objects(two_tables):
    """Only the objects of the span are asked."""
    store = HookedStore(two_tables.store)
    assert [row.txid for row in transactions(store, "app.db", Span(4, 5))] == [5, 4]
    assert store.keys("get") == [two_tables.keys.wal(4)]


def test_the_command_finds_the_moment(two_tables, tmp_path, run):
    """The table of commits has the tables, and its times are bounds as they stand."""
    (tmp_path / "bucket").mkdir()
    store = DirectoryStore(tmp_path / "bucket")
    for key in two_tables.objects():
        store.put(key, two_tables.store.get(key), metadata=two_tables.store.head(key).metadata)
    url = ("--url", f"file://{tmp_path}/bucket", "--scratch", tmp_path)
    code, out, err = run("history", *url, "--table", "t", "--since", "2")
    assert code == 0, err
    newest, older = (line.split() for line in out.splitlines()[1:])
    assert (newest[0], newest[-1], older[0]) == ("5", "t", "2")
    time = newest[1]
    assert time == to_text(commit_ms(5))
    out = run("history", *url, "--tables", "--since", time, "--json")[1]
    assert [(row["txid"], row["tables"]) for row in json.loads(out)] == [(6, ["c"]), (5, ["t"])]
    out = run("history", *url, "--until", time, "--limit", 1, "--json")[1]
    assert [(row["txid"], row["tables"]) for row in json.loads(out)] == [(5, None)]
    code, out, _ = run("restore", *url[:2], "--at", time, "-o", tmp_path / "o.db", "--json")
    assert (code, json.loads(out)["txid"]) == (0, 5)
    assert "unknown" in run("history", *url, "--tables", "--until", "1")[1]


@given(st.randoms(use_true_random=False))
def test_pages_of_any_content_have_owners_or_none(chance):
    """A schema and trees of damaged pages end in an answer: nothing is read for ever."""

    def read(pgno):
        if pgno > 40:
            return bytes(512)
        page = bytearray(chance.randbytes(512))
        start = 100 if pgno == 1 else 0
        page[start], page[20] = chance.choice([2, 5, 10, 13, 0]), 0
        page[start + 3 : start + 5] = (0, chance.randrange(4))
        page[start + 5 : start + 20] = bytes(chance.choice([0, 0, 0, 9, 30]) for _ in range(15))
        return bytes(page)

    owners_of = Owners(read)
    touched = owners_of.after([1, 2, 3, 4, 5], 5)
    assert 0 <= touched.unknown_pages <= 4
