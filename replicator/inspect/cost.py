"""The monthly cost of a backup, from the archive and the times of its commits.

Owns the estimate: a workload read off the newest day of the archive, its stored bytes and
requests under our scheme and under Litestream 0.5's, and list prices. An estimate and no invoice:
no free tier, no traffic out, no deletions (which the three stores give away).

Litestream's scheme, from its documentation and the defaults in its ``store.go``: one LTX file a
second of activity; compactions every 30 s, 5 min and 1 h of activity, from local files; a
snapshot every 24 h, kept for 24 h with the compacted levels since; level 0 gone after 5 min.
480 LIST requests an hour were measured while idle (version 0.5.17). LTX compresses each page
alone with LZ4, which took 2.1 times the bytes of zstd over the same pages together (measured on
100 and 1000 small transactions: 2.12 and 2.21 for the newest images).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from replicator.archive.locate import open_archive, url_of
from replicator.inspect.history import History, history
from replicator.inspect.transactions import Transaction, transactions
from replicator.store.address import StoreAddress
from replicator.store.base import Store

DAY_MS, DAYS, GB = 86_400_000, 30, 10**9
MOST_TRANSACTIONS = 200_000  # of the newest day; more than that are extrapolated
MERGE_LEVELS_S = (300, 3600)  # ours
LTX_LEVELS_S = (30, 300, 3600)
SNAPSHOT_PART = 5 << 20  # bytes; the first snapshot of a generation has larger ones
LTX_FACTOR = 2.1
LTX_KEPT_DAYS = 1.5  # between one and two days, from snapshot to snapshot
LTX_SNAPSHOTS = 2.0  # at most: the one that is kept and the one that is new
LTX_LISTS_PER_HOUR = 480
OUR_LISTS_PER_ACTIVE_HOUR = 4  # of merges and retention; none while idle


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices in US dollars: a GB (10⁹ bytes) a month, and a thousand requests."""

    name: str
    gb_month: float
    put: float
    listing: float
    get: float
    source: str


PRICES = (
    Prices(
        "S3 Standard, us-east-1",
        0.023,
        0.005,
        0.005,
        0.0004,
        "aws.amazon.com/s3/pricing, first 50 TB, known in 2025",
    ),
    Prices(
        "Cloudflare R2",
        0.015,
        0.0045,
        0.0045,
        0.00036,
        "developers.cloudflare.com/r2/pricing, checked in 2026",
    ),
    Prices(
        "Backblaze B2",
        0.006,
        0.0,
        0.004,
        0.0004,
        "backblaze.com/cloud-storage/pricing, known in 2025",
    ),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One day: ``active`` counts the windows of so many seconds with a commit; ``log_bytes`` is its
    size in our objects."""

    observed_days: float
    transactions: float
    log_bytes: float
    active: dict[int, float]
    snapshots: float
    snapshot_bytes: int  # of the newest


@dataclass(frozen=True, slots=True)
class Usage:
    """A month of it."""

    stored_bytes: float
    puts: float
    lists: float
    gets: float


@dataclass(frozen=True, slots=True)
class Bill:
    """Dollars a month at the prices of ``store``."""

    store: str
    storage: float
    requests: float

    @property
    def total(self) -> float:
        return self.storage + self.requests


@dataclass(frozen=True, slots=True)
class CostReport:
    """``ours`` counts the bytes stored now and today's rate of requests; ``litestream`` is the same
    workload under its scheme."""

    url: str
    log_bytes: int
    merged_bytes: int
    snapshot_bytes: int
    workload: Workload
    ours: Usage
    litestream: Usage
    bills: tuple[tuple[Bill, Bill], ...]
    sources: tuple[str, ...]


def cost_at(address: StoreAddress, prices: Iterable[Prices] = PRICES) -> CostReport:
    """:func:`cost` of the database an address names, or of the only one there."""
    with open_archive(address) as (store, prefix):
        return cost(store, prefix, prices)


def cost(store: Store, prefix: str, prices: Iterable[Prices] = PRICES) -> CostReport:
    """The estimate. Reads one listing and the ends of the newest day's objects; ``NoBackup``
    if there is nothing."""
    found = history(store, prefix, url=url_of(store, prefix))
    workload = observe(_newest_day(transactions(store, prefix)), found)
    ours, theirs = our_usage(workload, found.total_bytes), litestream_usage(workload)
    kept = tuple(prices)
    return CostReport(
        found.url,
        found.segment_bytes,
        found.merged_bytes,
        found.snapshot_bytes,
        workload,
        ours,
        theirs,
        tuple((bill(ours, each), bill(theirs, each)) for each in kept),
        tuple(f"{each.name}: {each.source}" for each in kept),
    )


def _newest_day(rows: Iterable[Transaction], most: int = MOST_TRANSACTIONS) -> list[Transaction]:
    """The commits of the last 24 hours of the log."""
    kept: list[Transaction] = []
    for row in rows:
        if row.committed_ms is None:
            continue
        if len(kept) == most or (kept and _ms(kept[0]) - row.committed_ms > DAY_MS):
            break
        kept.append(row)
    return kept


def _ms(row: Transaction) -> int:
    return row.committed_ms or 0


def observe(rows: list[Transaction], found: History) -> Workload:
    """A day, scaled up or down from the commits that were seen."""
    newest = max((snapshot for snapshot in found.snapshots), key=lambda one: one.txid)
    age = max(1, found.activity.until_ms - found.activity.since_ms) / DAY_MS
    snapshots = (len(found.snapshots) - 1) / max(age, 1.0)
    if not rows:
        return Workload(
            0.0, 0.0, 0.0, dict.fromkeys((1, *LTX_LEVELS_S), 0.0), snapshots, newest.size
        )
    span = _ms(rows[0]) - _ms(rows[-1])
    full = len(rows) == MOST_TRANSACTIONS or age > 1
    days = max(span / DAY_MS, 1e-9) if full and span else 1.0
    seconds = {_ms(row) // 1000 for row in rows}
    commits = sum(row.txid - row.first_txid + 1 for row in rows)
    each = _stored_per_transaction(found)
    return Workload(
        days,
        commits / days,
        each * commits / days,
        {
            width: len({second // width for second in seconds}) / days
            for width in (1, *LTX_LEVELS_S)
        },
        snapshots,
        newest.size,
    )


def _stored_per_transaction(found: History) -> float:
    """Bytes of the finest objects, segments and merges that keep every transaction."""
    spread = max(1, found.last_txid - found.first_txid)
    return max(found.segment_bytes, found.merged_bytes) / spread


def our_usage(workload: Workload, stored_bytes: int) -> Usage:
    """One PUT a second of activity at most, one a merge, and those of the snapshots."""
    merges = sum(workload.active[width] for width in MERGE_LEVELS_S)
    puts = (
        workload.active[1] + merges + workload.snapshots * _snapshot_puts(workload.snapshot_bytes)
    )
    hours = workload.active[3600]
    return Usage(
        stored_bytes, DAYS * puts, DAYS * hours * OUR_LISTS_PER_ACTIVE_HOUR, DAYS * merges
    )  # a HEAD each, which proves it


def _snapshot_puts(size: int) -> int:
    """A request a part, sent or copied, which are billed alike; and to begin the upload, to
    list its parts, and to complete it."""
    parts = -(-size // SNAPSHOT_PART)
    return parts + 3 if parts > 1 else 1


def litestream_usage(workload: Workload) -> Usage:
    """The scheme of the module's docstring, for the same workload."""
    compactions = sum(workload.active[width] for width in LTX_LEVELS_S)
    daily = workload.log_bytes * LTX_FACTOR
    stored = (
        LTX_SNAPSHOTS * workload.snapshot_bytes * LTX_FACTOR
        + LTX_KEPT_DAYS * len(LTX_LEVELS_S) * daily
    )
    return Usage(
        stored, DAYS * (workload.active[1] + compactions + 1), DAYS * 24 * LTX_LISTS_PER_HOUR, 0.0
    )


def bill(usage: Usage, prices: Prices) -> Bill:
    requests = (
        usage.puts * prices.put + usage.lists * prices.listing + usage.gets * prices.get
    ) / 1000
    return Bill(prices.name, usage.stored_bytes / GB * prices.gb_month, requests)


def own_prices(
    *, gb_month: float | None, put: float | None, listing: float | None, get: float | None
) -> Iterator[Prices]:
    """The prices to use: those of the user instead of the first, or all that are known."""
    if gb_month is None and put is None and listing is None and get is None:
        yield from PRICES
        return
    base = PRICES[0]
    yield Prices(
        "your prices",
        base.gb_month if gb_month is None else gb_month,
        base.put if put is None else put,
        base.listing if listing is None else listing,
        base.get if get is None else get,
        f"given; otherwise those of {base.name}",
    )
