"""An independent reader of SQLite's WAL, and SQLite itself as a judge.

Nothing here uses the code under test: the checksum is the definition from SQLite's
documentation, one pair of words at a time, and the pages are put together in a dictionary.
"""

import contextlib
import os
import random
import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path

MASK = 0xFFFFFFFF


def plain_sum(data, big_endian, seed=(0, 0)):
    s0, s1 = seed
    for a, b in struct.iter_unpack(">2I" if big_endian else "<2I", data):
        s0 = (s0 + s1 + a) & MASK
        s1 = (s1 + s0 + b) & MASK
    return s0, s1


@dataclass
class Reading:
    """The content of a WAL: (pgno, commit, image) of its valid frames, the number of committed
    frames, and the cumulative checksums."""

    frames: list
    committed: int
    checksums: list


def read_wal(data):
    """The valid frames of a log file, read the plain way; None when there is no header."""
    if len(data) < 32:
        return None
    magic, version, size, _, salt1, salt2, *stored = struct.unpack(">8I", data[:32])
    if magic not in {0x377F0682, 0x377F0683} or version != 3007000:
        return None
    big_endian = magic & 1
    if size not in {512 << n for n in range(8)}:
        return None
    if plain_sum(data[:24], big_endian) != tuple(stored):
        return None
    reading, chain = Reading([], 0, []), tuple(stored)
    for at in range(32, len(data) - size - 23, size + 24):
        head, image = data[at : at + 24], data[at + 24 : at + 24 + size]
        pgno, commit, first, second, *stored = struct.unpack(">6I", head)
        chain = plain_sum(image, big_endian, plain_sum(head[:8], big_endian, chain))
        if not pgno or (first, second) != (salt1, salt2) or chain != tuple(stored):
            break
        reading.frames.append((pgno, commit, image))
        reading.checksums.append(chain)
        if commit:
            reading.committed = len(reading.frames)
    return reading


def overlay(base, page_size, frames):
    """The database file ``base`` after the (committed) ``frames``."""
    if not frames:
        return base
    pages = {
        n + 1: base[n * page_size : (n + 1) * page_size] for n in range(len(base) // page_size)
    }
    for pgno, commit, image in frames:
        pages[pgno] = image
        if commit:
            pages = {number: page for number, page in pages.items() if number <= commit}
    size = frames[-1][1]  # the last frame of a committed range commits
    return b"".join(pages.get(number, bytes(page_size)) for number in range(1, size + 1))


def sqlite_image(directory, base, wal):
    """The database SQLite makes of the two files; None when it refuses to open them."""
    path = Path(directory) / "judged.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(base)
    Path(f"{path}-wal").write_bytes(wal)
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert busy == 0
    except sqlite3.OperationalError:
        return None
    return path.read_bytes()


def rewrite_big_endian(wal):
    """The same log as a big-endian machine would have written it (valid frames only)."""
    reading = read_wal(wal)
    _, version, size, sequence, salt1, salt2 = struct.unpack(">6I", wal[:24])
    out = bytearray(struct.pack(">6I", 0x377F0683, version, size, sequence, salt1, salt2))
    chain = plain_sum(out, big_endian=True)
    out += struct.pack(">2I", *chain)
    for pgno, commit, image in reading.frames:
        head = struct.pack(">2I", pgno, commit)
        chain = plain_sum(head + image, True, chain)
        out += head + struct.pack(">4I", salt1, salt2, *chain) + image
    return bytes(out)


class Source:
    """A database whose files a test copies while a connection holds its log open."""

    def __init__(self, directory, page_size=4096, *, auto_vacuum=0, cache_pages=2000):
        self.path = os.path.join(directory, "source.db")
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        for pragma in (
            f"page_size={page_size}",
            f"auto_vacuum={auto_vacuum}",
            "journal_mode=WAL",
            "wal_autocheckpoint=0",
            "synchronous=OFF",
            f"cache_size={cache_pages}",
        ):
            self.connection.execute(f"PRAGMA {pragma}")
        self.page_size = page_size
        self.run("CREATE TABLE item(id INTEGER PRIMARY KEY, body BLOB)")
        self.checkpoint("TRUNCATE")

    def run(self, *statements):
        for statement in statements:
            self.connection.execute(statement)

    def insert(self, rng, size, count=1):
        for _ in range(count):
            self.connection.execute("INSERT INTO item(body) VALUES (?)", (rng.randbytes(size),))

    def checkpoint(self, mode):
        self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()

    def files(self):
        """The bytes of the database file and of its log, as they are now."""
        log = Path(self.path + "-wal")
        return Path(self.path).read_bytes(), log.read_bytes() if log.exists() else b""

    def close(self):
        self.connection.close()


def spilled_and_rolled_back(source, rng):
    """A WAL with spilled frames, of which some were rolled back and some rewritten."""
    source.run("PRAGMA cache_size=4")
    source.run("BEGIN")
    source.insert(rng, source.page_size, 12)
    source.run("SAVEPOINT inner")
    source.insert(rng, source.page_size, 12)
    source.run("UPDATE item SET body = zeroblob(30) WHERE id % 2", "ROLLBACK TO inner")
    source.insert(rng, 40, 2)
    source.run("COMMIT", "BEGIN")
    source.insert(rng, source.page_size, 12)
    source.run("ROLLBACK")
    source.insert(rng, 20)


def restarted_in_place(source, rng):
    """A WAL restarted at its first frame, with frames of the older WAL behind."""
    for _ in range(6):
        source.insert(rng, source.page_size // 2)
    source.checkpoint("RESTART")
    for _ in range(2):
        source.insert(rng, source.page_size // 3)


def shrunk(source, rng):
    """A log whose commits make the database smaller and larger again."""
    source.insert(rng, source.page_size * 2, 4)
    source.run("DELETE FROM item", "VACUUM")
    source.insert(rng, source.page_size * 2, 2)


def recorded(directory, page_size, story, seed=1):
    """The two files of a database after ``story``."""
    source = Source(directory, page_size)
    try:
        story(source, random.Random(seed))
        return source.files()
    finally:
        source.close()
