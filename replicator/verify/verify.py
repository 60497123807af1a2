"""``verify()``: is what the bucket holds of a database whole?

Owns the survey and its report: a listing, what each object says of itself, whether that fits
together (:mod:`.consistency`), what can be restored (:mod:`replicator.archive.reachable`) and,
where asked, every byte (:mod:`.objects`). Reads only. A newest segment that was removed leaves
no trace in a bucket; ``expected_txid`` is for who knows how far the log must go.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from replicator.archive.catalog import DIVISIBLE, Catalog, first_txid
from replicator.archive.keys import EncryptedKey, Keys, MergedKey, SnapshotKey, WalKey, parse_key
from replicator.archive.locate import opened
from replicator.archive.reachable import Ranges, Said, normalised, restorable, without
from replicator.archive.records import DAMAGED, note, notes, thinned_before
from replicator.errors import (
    ConfigError,
    DamageError,
    GapError,
    NoBackup,
    ObjectMissing,
    ReplicatorError,
)
from replicator.format.object_header import ObjectFacts
from replicator.recovery.fetch import Fetcher
from replicator.recovery.progress import Meter, Progress
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system import clock
from replicator.verify import consistency as chain
from replicator.verify.consistency import Finding
from replicator.verify.objects import (
    Item,
    Misdescribed,
    compare,
    fits,
    prove_log_object,
    prove_snapshot,
    said_by_itself,
    said_by_metadata,
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
    """What was looked at and what was found. ``read_objects`` and ``read_bytes`` count what was
    read to its last byte (of a sample: as far as it went)."""

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
    present: bool  # whether the newest transaction can be restored
    seconds: float

    @property
    def exit_code(self) -> int:
        """3 if anything is damaged, 4 if something is missing, else 0."""
        if any(finding.kind == "damaged" for finding in self.findings):
            return DamageError.exit_code
        return GapError.exit_code if self.findings else 0


@dataclass(slots=True)
class _Survey:
    """The objects below a prefix, and what became known of them."""

    items: list[Item]
    thinned: int = 0  # before this transaction, retention may have left holes
    facts: dict[str, ObjectFacts] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)  # by key: what is wrong
    misdescribed: dict[str, str] = field(default_factory=dict)  # sound all the same

    def know(self, key: str, answer: ObjectFacts | DamageError) -> None:
        """What an object, or reading it, said."""
        if isinstance(answer, ObjectFacts):
            self.facts[key] = answer
        elif isinstance(answer, Misdescribed):
            self.facts[key] = answer.facts
            self.misdescribed[key] = _problem(key, answer)
        else:
            self.damaged[key] = _problem(key, answer)


def verify_at(
    address: StoreAddress,
    *,
    data: bool = False,
    sample: str | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> VerifyReport:
    """:func:`verify` of the database an address names, or of the only one there. What it finds is
    noted in the bucket, where that may be written, for the sidecar of the database."""
    with opened(address) as (store, prefix):
        report = verify(store, prefix, data=data, sample=sample, seed=seed, progress=progress)
        if report.findings:
            with contextlib.suppress(ReplicatorError):
                note(
                    store,
                    Keys(prefix),
                    DAMAGED,
                    report.head_txid,
                    clock.now_ms(),
                    {"findings": [asdict(finding) for finding in report.findings]},
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
) -> VerifyReport:
    """Look at everything below ``prefix``.

    ``data`` reads every byte, ``sample`` the objects of a slice (``1/7`` by day, ``2%`` or
    ``50M`` drawn by ``seed``). ``expected_txid`` must be in the log. Raises ``NoBackup``,
    ``ConfigError``, and what the store raises; damage and gaps are in the report.
    """
    chosen = Sample.parse(sample) if sample else None
    started, meter = time.monotonic(), Meter(progress)
    catalog = Catalog(store, prefix)
    survey = _surveyed(store, catalog, meter)
    wanted = [(item, item.size) for item in survey.items] if data and chosen is None else []
    if chosen is not None:
        now = clock.now_ms() if now_ms is None else now_ms
        wanted = chosen.choose(survey.items, now_ms=now, seed=seed)
    read = _read(store, catalog, survey, wanted, seed, meter)
    by_chance = chosen is not None and not chosen.slices
    return _report(
        survey,
        catalog.keys,
        expected_txid,
        VerifyReport(
            url=f"{store.url.rstrip('/')}/{prefix}".rstrip("/"),
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
            present=False,
            seconds=0.0,
        ),
        started,
    )


# ------------------------------------------------------------------------------- what is there


def _surveyed(store: Store, catalog: Catalog, meter: Meter) -> _Survey:
    """List, and ask each object what it is; again if one vanished meanwhile."""
    for left in reversed(range(LISTINGS)):
        meter.phase("plan")
        survey = _Survey(listed(store, catalog.keys), thinned_before(notes(store, catalog.keys)))
        if not survey.items:
            raise NoBackup(
                f"no backup at {store.url.rstrip('/')}/{catalog.keys.prefix}",
                hint="check the bucket and the prefix",
            )
        if _ask_all(store, catalog, survey, meter) or not left:
            break
    return survey


def listed(store: Store, keys: Keys) -> list[Item]:
    """Log objects, snapshots, merges: what replaces an object is listed after it."""
    found: list[Item] = []
    for folder in (keys.wal_dir, keys.snapshot_dir, keys.merged_dir):
        for info in store.list(folder):
            key = parse_key(keys.prefix, info.key, info.size)
            if isinstance(key, EncryptedKey):
                raise ConfigError(f"{key.key} is encrypted, which this version cannot read")
            if key is not None:
                found.append(key)
    return found


def _ask_all(store: Store, catalog: Catalog, survey: _Survey, meter: Meter) -> bool:
    """False if an object vanished."""
    whole = True
    meter.begin("structure", 0, len(survey.items))

    def ask(item: Item) -> ObjectFacts | DamageError | None:
        try:
            return _facts(store, catalog, item)
        except ObjectMissing:
            return None
        except DamageError as error:
            return error

    with ThreadPoolExecutor(ASKERS, "verify") as pool:
        for item, answer in zip(survey.items, pool.map(ask, survey.items), strict=True):
            meter.advance(0, 1)
            if answer is not None:
                survey.know(item.key, answer)
            whole = whole and answer is not None
    survey.items = [
        item for item in survey.items if item.key in survey.facts or item.key in survey.damaged
    ]
    return whole


def _facts(store: Store, catalog: Catalog, item: Item) -> ObjectFacts:
    """Of an L0 segment its metadata will do; the few others must say it themselves, too."""
    claimed = None if isinstance(item, SnapshotKey) else said_by_metadata(store, item)
    if claimed is None or isinstance(item, MergedKey) or not fits(item, claimed):
        found = said_by_itself(store, catalog, item)
        compare(item, found, claimed)
        return claimed or found
    return claimed


def _problem(key: str, error: ReplicatorError) -> str:
    return str(error).removeprefix(f"{key}: ")


# -------------------------------------------------------------------------------- every byte


def _read(
    store: Store,
    catalog: Catalog,
    survey: _Survey,
    wanted: Iterable[tuple[Item, int]],
    seed: int,
    meter: Meter,
) -> int:
    """Read what is wanted and not known to be damaged; bytes read."""
    good = [(item, limit) for item, limit in wanted if item.key not in survey.damaged]
    if not good:
        return 0
    meter.begin("content", sum(limit for _, limit in good), len(good))
    done = 0
    with Fetcher(store, meter) as fetcher:
        for size in _read_all(fetcher, catalog, survey, good, seed):
            meter.advance(size)
            done += size
    return done


def _read_all(
    fetcher: Fetcher, catalog: Catalog, survey: _Survey, wanted: list[tuple[Item, int]], seed: int
) -> Iterator[int]:
    log = [item for item, _ in wanted if not isinstance(item, SnapshotKey)]
    yield from fetcher.in_order(
        (weight(item), partial(_read_one, fetcher, survey, item)) for item in log
    )
    for item, limit in wanted:
        if isinstance(item, SnapshotKey):
            try:
                yield from prove_snapshot(fetcher, catalog, item, limit=limit, seed=seed)
            except DamageError as error:
                survey.damaged[item.key] = _problem(item.key, error)
            except ObjectMissing:
                survey.damaged[item.key] = "it was listed, but is not there"


def _read_one(fetcher: Fetcher, survey: _Survey, item: WalKey | MergedKey) -> int:
    try:
        survey.know(item.key, prove_log_object(fetcher, item, survey.facts[item.key]))
    except DamageError as error:
        survey.know(item.key, error)
    except ObjectMissing:
        survey.damaged[item.key] = "it was listed, but is not there"
    return item.size


# ---------------------------------------------------------------------------------- judgement


def _report(
    survey: _Survey, keys: Keys, expected_txid: int, draft: VerifyReport, started: float
) -> VerifyReport:
    log = [
        _said(item, survey.facts[item.key])
        for item in survey.items
        if item.key in survey.facts and not isinstance(item, SnapshotKey)
    ]
    snapshots = _in_log(
        [
            _said(item, survey.facts[item.key])
            for item in survey.items
            if item.key in survey.facts and isinstance(item, SnapshotKey)
        ],
        log,
    )
    extents = _extents(survey, log)
    head = max(
        [
            expected_txid,
            *(last for _, last in extents.values()),
            *(snapshot.last for snapshot in snapshots),
        ]
    )
    findings = [
        Finding("damaged", key, problem, *extents[key]) for key, problem in survey.damaged.items()
    ]
    findings += chain.contradictions(log, snapshots)
    findings += [*chain.strangers(log, snapshots), *chain.page_sizes(log, snapshots)]
    present = {item.key for item in survey.items}
    findings += chain.missing_starts(log, snapshots, present, survey.thinned, keys)
    findings += chain.holes(_log_extents(survey, extents), snapshots, head, survey.thinned, keys)
    bad = {finding.key for finding in findings}
    findings += [
        Finding("damaged", key, problem, *extents[key])
        for key, problem in survey.misdescribed.items()
    ]
    findings = list({finding.key: finding for finding in reversed(findings)}.values())
    reach = restorable(
        [one for one in snapshots if one.key not in bad], [one for one in log if one.key not in bad]
    )
    lost = without(_should_be(findings, snapshots, extents, head, survey.thinned), reach)
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
        present=any(first <= head <= last for first, last in reach),
        seconds=time.monotonic() - started,
    )


def _said(item: Item, facts: ObjectFacts) -> Said:
    return Said(
        item.key,
        facts.kind,
        facts.generation,
        facts.first_txid,
        facts.last_txid,
        facts.kind in DIVISIBLE,
        facts.checksum_before,
        facts.checksum_after,
        facts.page_size,
        facts.created_ms if facts.first_commit_ms is None else facts.first_commit_ms,
        facts.created_ms if facts.last_commit_ms is None else facts.last_commit_ms,
    )


def _in_log(snapshots: list[Said], log: list[Said]) -> list[Said]:
    """Without the orphans: snapshots of a start that crashed or lost its race."""
    generations = {piece.generation for piece in log}
    return [snapshot for snapshot in snapshots if snapshot.generation in generations]


def _extents(survey: _Survey, log: list[Said]) -> dict[str, tuple[int, int]]:
    """First and last txid of every object; of one that cannot be read, up to the next."""
    known = {piece.key: (piece.first, piece.last) for piece in log}
    starts = sorted(
        {first_txid(item) for item in survey.items if not isinstance(item, SnapshotKey)}
        | {last + 1 for _, last in known.values()}
    )
    for item in survey.items:
        if isinstance(item, SnapshotKey):
            known[item.key] = item.txid, item.txid
        elif isinstance(item, MergedKey):
            known.setdefault(item.key, (item.first, item.last))
        elif item.key not in known:
            later = (start for start in starts if start > item.first_txid)
            known[item.key] = item.first_txid, next(later, item.first_txid + 1) - 1
    return known


def _log_extents(survey: _Survey, extents: dict[str, tuple[int, int]]) -> list[tuple[int, int]]:
    return [extents[item.key] for item in survey.items if not isinstance(item, SnapshotKey)]


def _should_be(
    findings: list[Finding],
    snapshots: list[Said],
    extents: dict[str, tuple[int, int]],
    head: int,
    thinned: int,
) -> Ranges:
    """What could be restored if nothing were damaged or missing, as far as one can tell: where
    retention was at work, only what the damaged objects hold."""
    oldest = min(
        [snapshot.last for snapshot in snapshots] + [first for first, _ in extents.values()],
        default=1,
    )
    held = [(finding.first_txid, finding.last_txid) for finding in findings]
    return normalised([*held, (max(oldest, thinned), head)])


def _with_loss(finding: Finding, lost: Ranges) -> Finding:
    """With the unrestorable transactions that begin with it."""
    own = tuple(
        (max(first, finding.first_txid), last)
        for first, last in lost
        if last >= finding.first_txid and first <= finding.last_txid + 1
    )
    return replace(finding, lost=normalised(own))


def _windows(reach: Ranges, log: list[Said]) -> Iterator[Window]:
    starts = {piece.first: piece.first_ms for piece in log}
    ends = {piece.last: piece.last_ms for piece in log}
    for first, last in reach:
        yield Window(first, last, starts.get(first, ends.get(first)), ends.get(last))
