"""``verify()``: checks the archive of a database.

Owns the survey and its report: a listing, the facts of each object, their consistency
(:mod:`.consistency`), the restorable transactions (:mod:`replicator.archive.reachable`) and, on
request, every byte (:mod:`.objects`). Only reads. A newest segment that was removed leaves no trace
in a bucket; ``expected_txid`` is for callers that know the newest transaction.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from replicator.archive.facts import FactsReader, fits
from replicator.archive.index import (
    OPEN_END,
    SEGMENTS,
    ArchiveObject,
    Index,
    SnapshotObject,
    WalObject,
)
from replicator.archive.keys import Keys
from replicator.archive.listing import list_all
from replicator.archive.locate import no_backup, open_archive, url_of
from replicator.archive.reachable import Range, Ranges, normalised, restorable, without
from replicator.archive.records import DAMAGED, add_record, list_records, pruned_before
from replicator.errors import (
    DamageError,
    GapError,
    Inconclusive,
    NewerFormat,
    ObjectMissing,
    ReplicatorError,
    Unreadable,
)
from replicator.format.object_header import ObjectFacts
from replicator.recovery.fetch import Fetcher
from replicator.recovery.limits import DEFAULT_LIMITS, RecoveryLimits
from replicator.recovery.progress import Meter, Progress
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system import clock
from replicator.verify import consistency
from replicator.verify.consistency import Facts, Finding
from replicator.verify.objects import (
    Misdescribed,
    compare,
    verify_snapshot,
    verify_wal_object,
    weight,
)
from replicator.verify.sample import Sample

ASKERS = 16  # HEADs under way
LISTINGS = 3  # objects vanish while merges and retention are at work


@dataclass(frozen=True, slots=True)
class Window:
    """Transactions that can be restored one by one (but for merged steps), and when the first
    and the last was committed (ms)."""

    first_txid: int
    last_txid: int
    first_ms: int | None
    last_ms: int | None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The checked objects and the findings. ``read_objects`` and ``read_bytes`` count the objects
    that were read to their last byte (of a sample: as far as it went)."""

    url: str
    objects: int
    bytes: int
    read_objects: int
    read_bytes: int
    sample: str
    seed: int | None
    head_txid: int
    findings: tuple[Finding, ...]
    restorable: tuple[Window, ...]
    lost: Ranges
    newest_restorable: bool  # the newest transaction can be restored
    seconds: float
    unauthenticated: bool = False  # the archive is sealed, and its integrity key was not given

    @property
    def exit_code(self) -> int:
        """3 if anything is damaged, 4 if something is missing, 10 if an object has a format that
        this version cannot check, else 0."""
        kinds = {finding.kind for finding in self.findings}
        codes = {
            "damaged": DamageError.exit_code,
            "missing": GapError.exit_code,
            "inconclusive": Inconclusive.exit_code,
        }
        return next((code for kind, code in codes.items() if kind in kinds), 0)

    @property
    def bad(self) -> tuple[Finding, ...]:
        """What is damaged or missing."""
        return tuple(finding for finding in self.findings if finding.kind != "inconclusive")


@dataclass(slots=True)
class _Survey:
    """The objects below a prefix, and the facts that became known of them."""

    items: list[ArchiveObject]
    pruned: int = 0  # before this transaction, retention may have left holes
    facts: dict[str, ObjectFacts] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)  # by key: the problem
    misdescribed: dict[str, str] = field(default_factory=dict)  # intact except for the metadata
    newer: set[str] = field(default_factory=set)  # those of ``damaged`` with a newer format

    def learn(self, key: str, answer: ObjectFacts | Unreadable) -> None:
        """Keep the answer of an object, or the error of reading it."""
        if isinstance(answer, ObjectFacts):
            self.facts[key] = answer
        elif isinstance(answer, Misdescribed):
            self.facts[key] = answer.facts
            self.misdescribed[key] = _problem(key, answer)
        else:
            self.damaged[key] = _problem(key, answer)
            if isinstance(answer, NewerFormat):
                self.newer.add(key)

    @property
    def index(self) -> Index:
        return Index.of(
            item.with_facts(self.facts[item.key]) if item.key in self.facts else item
            for item in self.items
        )


def verify_at(
    address: StoreAddress,
    *,
    data: bool = False,
    sample: str | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> VerifyReport:
    """:func:`verify` of the database an address names, or of the only one there. Findings
    are recorded in the bucket for the sidecar of the database, if the store permits that."""
    with open_archive(address) as (store, prefix):
        report = verify(store, prefix, data=data, sample=sample, seed=seed, progress=progress)
        if report.bad:
            with contextlib.suppress(ReplicatorError):
                add_record(
                    store,
                    Keys(prefix),
                    DAMAGED,
                    report.head_txid,
                    clock.now_ms(),
                    {"findings": [asdict(finding) for finding in report.bad]},
                )
        return report


def verify(
    store: Store,
    prefix: str,
    *,
    data: bool = False,
    sample: str | None = None,
    seed: int = 0,
    expected_txid: int = 0,
    now_ms: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    limits: RecoveryLimits = DEFAULT_LIMITS,
) -> VerifyReport:
    """Check everything below ``prefix``.

    ``data`` reads every byte, ``sample`` the objects of a slice (``1/7`` by day, ``2%`` or
    ``50M`` drawn by ``seed``). ``expected_txid`` must be in the archive. Raises ``NoBackup``,
    ``ConfigError``, and the errors of the store; damage and gaps are in the report.
    """
    chosen = Sample.parse(sample) if sample else None
    started, meter = time.monotonic(), Meter(progress)
    keys, reader = Keys(prefix), FactsReader(store)
    survey = _surveyed(store, keys, reader, meter)
    wanted = [(item, item.size) for item in survey.items] if data and chosen is None else []
    if chosen is not None:
        now = clock.now_ms() if now_ms is None else now_ms
        wanted = chosen.choose(survey.items, now_ms=now, seed=seed)
    with Fetcher(store, meter, limits) as fetcher:
        read = _read(fetcher, reader, survey, wanted, seed, meter)
    by_chance = chosen is not None and not chosen.slices
    return _report(
        survey,
        keys,
        expected_txid,
        VerifyReport(
            url=url_of(store, prefix),
            objects=len(survey.items),
            bytes=sum(item.size for item in survey.items),
            read_objects=len(wanted),
            read_bytes=read,
            sample=sample or "",
            seed=seed if by_chance else None,
            head_txid=0,
            findings=(),
            restorable=(),
            lost=(),
            newest_restorable=False,
            seconds=0.0,
            unauthenticated=store.integrity is None and reader.sealed,
        ),
        started,
    )


# ------------------------------------------------------------------------------- what is there


def _surveyed(store: Store, keys: Keys, reader: FactsReader, meter: Meter) -> _Survey:
    """List, and ask each object for its facts; again if one vanished before it answered."""
    for left in reversed(range(LISTINGS)):
        meter.phase("plan")
        items = list(list_all(store, keys))
        survey = _Survey(items, pruned_before(list_records(store, keys)))
        if not items:
            raise no_backup(url_of(store, keys.prefix))
        if _ask_all(reader, survey, meter) or not left:
            break
    return survey


def _ask_all(reader: FactsReader, survey: _Survey, meter: Meter) -> bool:
    """False if an object vanished."""
    whole = True
    meter.begin("structure", 0, len(survey.items))

    def ask(item: ArchiveObject) -> ObjectFacts | Unreadable | None:
        try:
            return _facts(reader, item)
        except ObjectMissing:
            return None
        except Unreadable as error:
            return error

    with ThreadPoolExecutor(ASKERS, "verify") as pool:
        for item, answer in zip(survey.items, pool.map(ask, survey.items), strict=True):
            meter.advance(0, 1)
            if answer is not None:
                survey.learn(item.key, answer)
            whole = whole and answer is not None
    survey.items = [
        item for item in survey.items if item.key in survey.facts or item.key in survey.damaged
    ]
    return whole


def _facts(reader: FactsReader, item: ArchiveObject) -> ObjectFacts:
    """Of a segment the metadata suffices; the few other objects are read themselves, too."""
    claimed = reader.metadata(item) if isinstance(item, WalObject) else None
    if claimed is None or _is_merge(item) or not fits(item, claimed):
        found = reader.read(item)
        compare(item, found, claimed)
        return claimed or found
    return claimed


def _is_merge(item: ArchiveObject) -> bool:
    return isinstance(item, WalObject) and item.level != SEGMENTS


def _problem(key: str, error: ReplicatorError) -> str:
    return str(error).removeprefix(f"{key}: ")


# -------------------------------------------------------------------------------- every byte


def _read(
    fetcher: Fetcher,
    reader: FactsReader,
    survey: _Survey,
    wanted: Iterable[tuple[ArchiveObject, int]],
    seed: int,
    meter: Meter,
) -> int:
    """Read the wanted objects that are not known to be damaged; bytes read."""
    good = [(item, limit) for item, limit in wanted if item.key not in survey.damaged]
    if not good:
        return 0
    meter.begin("content", sum(limit for _, limit in good), len(good))
    done = 0
    for size in _read_all(fetcher, reader, survey, good, seed):
        meter.advance(size)
        done += size
    return done


def _read_all(
    fetcher: Fetcher,
    reader: FactsReader,
    survey: _Survey,
    wanted: list[tuple[ArchiveObject, int]],
    seed: int,
) -> Iterator[int]:
    log = [item for item, _ in wanted if isinstance(item, WalObject)]
    yield from fetcher.in_order(
        (weight(item, fetcher.limits), partial(_read_one, fetcher, survey, item)) for item in log
    )
    for item, limit in wanted:
        if isinstance(item, SnapshotObject):
            try:
                yield from verify_snapshot(fetcher, reader, item, limit=limit, seed=seed)
            except Unreadable as error:
                survey.learn(item.key, error)
            except ObjectMissing:
                survey.damaged[item.key] = "it was listed, but is not there"


def _read_one(fetcher: Fetcher, survey: _Survey, item: WalObject) -> int:
    """Returns the bytes that were proved to be there; the listing alone proves none."""
    try:
        survey.learn(item.key, verify_wal_object(fetcher, item, survey.facts[item.key]))
    except Unreadable as error:
        survey.learn(item.key, error)
        return item.size if isinstance(error, Misdescribed) else 0
    except ObjectMissing:
        survey.damaged[item.key] = "it was listed, but is not there"
        return 0
    return item.size


# ---------------------------------------------------------------------------------- judgement


def _report(
    survey: _Survey, keys: Keys, expected_txid: int, draft: VerifyReport, started: float
) -> VerifyReport:
    index = survey.index
    log: Facts = {item.key: item.facts for item in index.wal if item.facts}
    orphans = _orphans(index)
    snapshots: Facts = {
        item.key: item.facts for item in index.snapshots if item.facts and item.key not in orphans
    }
    extents = {item.key: _extent(item) for item in index.by_key.values()}
    head = max([expected_txid, *(last for _, last in extents.values())])
    findings = [
        Finding("inconclusive" if key in survey.newer else "damaged", key, problem, *extents[key])
        for key, problem in survey.damaged.items()
    ]
    findings += consistency.contradictions(log, snapshots)
    findings += consistency.generation_mismatches(log, snapshots)
    findings += consistency.page_sizes(log, snapshots)
    findings += consistency.missing_starts(log, snapshots, index.by_key, survey.pruned, keys)
    covered = [extents[item.key] for item in index.wal]
    findings += consistency.holes(covered, snapshots, head, survey.pruned, keys)
    bad = {finding.key for finding in findings}
    findings += [
        Finding("damaged", key, problem, *extents[key])
        for key, problem in survey.misdescribed.items()
    ]
    findings = list({finding.key: finding for finding in reversed(findings)}.values())
    reach = restorable(index.without(bad | orphans))
    # From the first object that this version cannot check, nothing shows that a txid is lost.
    unknown = [(min(extents[key][0] for key in survey.newer), head)] if survey.newer else []
    should_be = _should_be(findings, snapshots, extents, head, survey.pruned)
    lost = without(should_be, normalised([*reach, *unknown]))
    return replace(
        draft,
        head_txid=head,
        lost=lost if findings else (),
        findings=tuple(
            sorted(
                (_with_loss(finding, lost) for finding in findings),
                key=lambda finding: (finding.first_txid, finding.key),
            )
        ),
        restorable=tuple(_windows(reach, log)),
        newest_restorable=any(first <= head <= last for first, last in reach),
        seconds=time.monotonic() - started,
    )


def _orphans(index: Index) -> set[str]:
    """Snapshots of a start that crashed or lost its race: no log object is of their generation."""
    begun = {item.generation for item in index.wal}
    return {item.key for item in index.snapshots if item.generation not in begun}


def _extent(item: ArchiveObject) -> Range:
    """First and last txid; of a segment that cannot be read, up to the next object, and of the
    newest one at least the first."""
    return item.first, item.first if item.last == OPEN_END else item.last


def _should_be(
    findings: list[Finding],
    snapshots: Facts,
    extents: dict[str, Range],
    head: int,
    pruned: int,
) -> Ranges:
    """The transactions that could be restored if nothing were damaged or missing; of those before
    the last prune, only those in the damaged objects."""
    oldest = min(
        [facts.last_txid for facts in snapshots.values()]
        + [first for first, _ in extents.values()],
        default=1,
    )
    held = [(finding.first_txid, finding.last_txid) for finding in findings]
    return normalised([*held, (max(oldest, pruned), head)])


def _with_loss(finding: Finding, lost: Ranges) -> Finding:
    """With the unrestorable transactions that begin with it."""
    own = tuple(
        (max(first, finding.first_txid), last)
        for first, last in lost
        if last >= finding.first_txid and first <= finding.last_txid + 1
    )
    return replace(finding, lost=normalised(own))


def _windows(reach: Ranges, log: Facts) -> Iterator[Window]:
    starts = {facts.first_txid: facts.first_ms for facts in log.values()}
    ends = {facts.last_txid: facts.last_ms for facts in log.values()}
    for first, last in reach:
        yield Window(first, last, starts.get(first, ends.get(first)), ends.get(last))
