"""The evidence that a database is the one that the cache has followed.

Device and inode alone prove little: a system gives the number of a removed file to the next one,
which only the time of birth shows; and ``cp`` writes another database into the same file. SQLite
never lowers the two counters in the header of a file, so lower ones show another database, or an
older copy. The hashes of the pages show how much of the known content is there.

Owns: the collection of this evidence, and the facts that the cache keeps for it. Refuses: to
decide; see :mod:`.decide`.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace

from replicator.cache.cache import Cache
from replicator.cache.records import Fact, SegmentRecord
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import wal_contains
from replicator.engine.decide import Likeness, LocalFacts
from replicator.format.database import HEADER_BYTES, DatabaseHeader, parse_database_header
from replicator.format.page_hashes import PageHashes
from replicator.sqlite.live import LiveDatabase
from replicator.system.birth import born_ns
from replicator.system.restore_marker import read_restore_marker


def file_fact(identity: tuple[int, int] | None) -> str:
    """Device and inode of a database file, as the cache records them under ``Fact.DATABASE``."""
    return json.dumps(identity)


def counters_fact(header: DatabaseHeader) -> str:
    """The counters of a header, as the cache records them under ``Fact.COUNTERS``."""
    return json.dumps((header.change_counter, header.schema_cookie))


def remember_file(cache: Cache, database: LiveDatabase) -> None:
    """Records the file that is followed."""
    cache.put(Fact.DATABASE, file_fact(database.identity))
    cache.put(Fact.BIRTH, birth_of(database))


def is_known_file(cache: Cache, database: LiveDatabase) -> bool:
    """True if the open file is the one that the cache followed."""
    if cache.get(Fact.DATABASE) != file_fact(database.identity):
        return False
    known, born = cache.get(Fact.BIRTH), birth_of(database)
    return known == born or not (known and born)  # of an older version, or not known here


def birth_of(database: LiveDatabase) -> str:
    """When the open file was made, as the cache records it under ``Fact.BIRTH``."""
    return str(born_ns(database.raw.fileno()) or "")


def remember(cache: Cache, image: Image) -> None:
    """Records the counters of the state from which the cache continues."""
    header = _header_of(image)
    if header is not None:
        cache.put(Fact.COUNTERS, counters_fact(header))


def _header_of(image: Image) -> DatabaseHeader | None:
    return parse_database_header(image.read(1, 1)[:HEADER_BYTES])


@dataclass(frozen=True, slots=True)
class Evidence:
    """Compares an open database with the newest ``record`` of a cache. ``hashes`` are those of that
    state, None if they were lost; ``pages`` is the number of pages that are read for a comparison.
    The caller holds the WAL."""

    database: LiveDatabase
    cache: Cache
    record: SegmentRecord
    hashes: PageHashes | None
    limits: CaptureLimits
    pages: int

    def facts(self, *, outside: bool = False, claimed: bool = False, fresh: bool) -> LocalFacts:
        """``outside``: the file was written without its WAL, so the WAL proves nothing."""
        database, record = self.database, self.record
        same_size = database.header().page_size == record.end.page_size
        facts = LocalFacts(
            same_page_size=same_size,
            same_file=is_known_file(self.cache, database),
            same_birth=self.cache.get(Fact.BIRTH) == (birth_of(database) or None),
            wal_contains_position=wal_contains(database.wal, record.end, self.limits),
            hashes_trusted=self.hashes is not None,
            restored=self._restored(),
            claimed=claimed,
            fresh=fresh,
        )
        return facts if facts.proved and not outside else self._compared(facts)

    def _restored(self) -> int | None:
        """The txid to which exactly this file was restored; None if it was not."""
        marker = read_restore_marker(self.database.path)
        header = self.database.header()
        names = marker is not None and marker.names(self.database.identity, header.change_counter)
        return marker.txid if marker is not None and names else None

    def _compared(self, facts: LocalFacts) -> LocalFacts:
        with Image(self.database, self.limits) as image:
            header = _header_of(image)
            went_back = header is not None and self._went_back(header)
            likeness = None
            same_size = facts.same_page_size and image.page_size == self.record.end.page_size
            if self.hashes is not None and same_size:
                likeness = compare(image, self.hashes, self.pages)
        return replace(facts, same_page_size=same_size, went_back=went_back, likeness=likeness)

    def _went_back(self, header: DatabaseHeader) -> bool:
        known = self.cache.get(Fact.COUNTERS)
        if known is None:  # a cache of an older version
            return False
        changes, schema = json.loads(known)
        return bool(header.change_counter < changes or header.schema_cookie < schema)


def compare(image: Image, hashes: PageHashes, most: int) -> Likeness:
    """Compares the pages that both have, or ``most`` of them, chosen at random."""
    common = min(image.pages, hashes.pages)
    pages = range(1, common + 1)
    chosen = sorted(random.sample(pages, most)) if common > most else pages
    differing = sum(bool(len(hashes.differing(pgno, image.read(pgno, 1)))) for pgno in chosen)
    return Likeness(len(chosen), differing)
