"""A month at ten small transactions a second: bytes, requests and the bill, here and in
Litestream's scheme.

    python -m benchmarks.month            # some minutes; writes results/month.md

Sizes are measured (``shop.py``). The month is computed: the real policy decides about an
index with those sizes. Litestream's month follows its documented rules (see
``replicator.cost``); nothing of it is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.shop import (
    GENERATION,
    HOUR_S,
    KEYS,
    RATE,
    SHARE,
    START_MS,
    Sizes,
    measure,
    sizes_at,
)
from replicator.archive.index import Index, SnapshotObject, WalObject
from replicator.config.settings import SqliteReplicatorConfig
from replicator.format.object_header import ObjectFacts
from replicator.inspect import cost
from replicator.model import Kind, Retention
from replicator.retention.limits import RetentionLimits
from replicator.retention.policy import PruneDecision, decide
from replicator.snapshot.limits import SnapshotRule
from replicator.snapshot.schedule import SnapshotFacts, snapshot_due

DAY_S, DAYS = 86_400, 30
STEADY_ROWS, GROWING_ROWS = 300_000, (10_000, 300_000, 3_000_000)
PART = 8 << 20  # bytes of a part of a large upload
RULES = {
    "defaults": Retention(),
    "7 days": Retention(hourly=0, daily=0),
    "1 day": Retention(every_transaction=DAY_S, hourly=0, daily=0),
}
DEFAULT: dict[str, Any] = {field.name: field.default for field in fields(SqliteReplicatorConfig)}
HEAD = f"""# A month at ten small transactions a second

Made by `python -m benchmarks.month`. Nine of ten transactions insert an order, one changes any
order; one segment a second, thirty days. **Sizes are measured** (an hour of real transactions
through the encoders and merges of this project). **The month is computed** from them: for the
replicator by its real policy (`replicator/retention/policy.py`), asked every six hours; for
Litestream by its documented rules, without running it:

- one LTX file a second, compactions every 30 s, 5 min and 1 h, a snapshot every 24 h;
- by default snapshots are kept 24 h, and the compacted levels since the oldest one (between one
  and two days; 1.5 is taken), level 0 for 5 minutes. "7 days" is a retention of 168 h;
- a file takes {cost.LTX_FACTOR} times the replicator's bytes for the newest images of the same
  pages (measured on other small transactions, see `replicator/inspect/cost.py`; with another
  factor its gigabytes change in proportion);
- {cost.LTX_LISTS_PER_HOUR} LIST requests an hour were measured of it while idle. Parts of its
  large uploads are not counted; those of the replicator are.

GB are 10⁹ bytes at the end of the month. The bill is US dollars a month, storage + requests, at
the list prices of `replicator/inspect/cost.py`, no free tier. **Retention is compared like for
like, row by row; the defaults promise different things**: the replicator keeps far more restore
points, for more bytes.
"""
RESULT = Path(__file__).with_name("results") / "month.md"


@dataclass(frozen=True, slots=True)
class Month:
    """``stored`` bytes by kind at the end; ``peak`` is that of their sum."""

    stored: dict[str, int]
    objects: int
    peak: int
    usage: cost.Usage
    decision: PruneDecision


def rows_at(known: Sequence[Sizes], second: float) -> float:
    return SHARE * RATE * second if len(known) > 1 else known[0].rows


def txid_at(second: int) -> int:
    """The newest at the end of so many seconds; the generation begins with 1."""
    return 1 + RATE * second


def item(level: int, kind: Kind, since: int, until: int, size: float, late: int) -> WalObject:
    """An object of the transactions between two seconds, stored ``late`` seconds after them."""
    first, last = txid_at(since) + 1, txid_at(until)
    key = KEYS.merged(level, first, last) if level else KEYS.wal(first)
    return WalObject(
        key,
        level,
        first,
        last,
        round(size),
        START_MS + 1000 * (until + late),
        facts(kind, first, last, START_MS + 1000 * until - 100),
    )


def facts(kind: Kind, first: int, last: int, at_ms: int) -> ObjectFacts:
    """Of an object whose content does not matter here."""
    return ObjectFacts(kind, GENERATION, first, last, 4096, 1, 0, 0, at_ms, None, None, "", "")


def snapshot_at(known: Sequence[Sizes], second: int) -> SnapshotObject:
    at_ms, txid = START_MS + 1000 * second, txid_at(second)
    size = round(sizes_at(known, rows_at(known, second)).snapshot)
    known_facts = facts(Kind.SNAPSHOT, txid, txid, at_ms)
    return SnapshotObject(
        KEYS.snapshot(txid, GENERATION), txid, GENERATION, size, at_ms, known_facts
    )


def our_month(
    known: Sequence[Sizes], rules: Retention, *, days: int = DAYS, step_hours: int = 6
) -> Month:
    """The policy asked every ``step_hours``; at a full hour ten minutes of segments are there."""
    marker_facts = facts(Kind.GENERATION, 1, 1, START_MS)
    marker = WalObject(KEYS.wal(1), 0, 1, 1, 400, START_MS, marker_facts)
    index = Index((marker,), (snapshot_at(known, 0),))
    news: list[WalObject | SnapshotObject] = []
    last, logged, puts, snapshots, totals = index.snapshots[0], 0.0, 2.0, 1, []
    for hour in range(1, days * 24 + 1):
        until, since = hour * HOUR_S, (hour - 1) * HOUR_S
        sizes = sizes_at(known, rows_at(known, until))
        news += [
            item(1, Kind.MERGE, at, at + 300, sizes.five_minutes, 60)
            for at in range(max(0, since - 300), until - 300, 300)
        ]
        if hour > 1:
            news.append(
                item(2, Kind.MERGE_NEWEST, since - HOUR_S, since, sizes.newest[HOUR_S], 420)
            )
        puts, logged = puts + HOUR_S + 13, logged + HOUR_S * sizes.segment
        if _due(last, START_MS + 1000 * until, logged):
            last, logged, snapshots = snapshot_at(known, until), 0.0, snapshots + 1
            news.append(last)
            puts += 2 + last.size / PART  # its parts, their end, and the note beside it
        if hour % step_hours == 0:
            segments = [
                item(0, Kind.SEGMENT, at, at + 1, sizes.segment, 1)
                for at in range(until - 600, until)
            ]
            now_ms = START_MS + 1000 * until
            decision = decide(
                index.with_objects([*news, *segments]),
                (),
                rules,
                now_ms,
                grace_ms=RetentionLimits().merge_grace_ms,
            )
            news, index = (
                [],
                index.with_objects([*news, *segments]).without(
                    verdict.key for verdict in decision.deletions
                ),
            )
            totals.append(sum(_by_kind(index).values()))
    usage = cost.Usage(
        totals[-1],
        puts,
        days * 24 * cost.OUR_LISTS_PER_ACTIVE_HOUR,
        days * 24 * (2 * 12 + 1) + snapshots,
    )  # HEADs that prove
    return Month(
        _by_kind(index),
        len(index.wal) + len(index.snapshots),
        max(totals),
        usage,
        decision,
    )


def _due(last: SnapshotObject, at_ms: int, logged: float) -> bool:
    return snapshot_due(
        SnapshotFacts(last.txid, last.stored_ms, last.size),
        at_ms=at_ms,
        segment_bytes=round(logged),
        rule=SnapshotRule(),
    )


def _by_kind(index: Index) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in index.wal:
        found[("segments", "5-minute merges", "hourly merges")[one.level]] += one.size
    found["snapshots"] = sum(one.size for one in index.snapshots)
    return dict(found)


# ---------------------------------------------------------------- the month there, and both


def their_month(
    known: Sequence[Sizes], kept_days: int, *, days: int = DAYS, seconds_too: bool = False
) -> tuple[dict[str, float], cost.Usage]:
    """A snapshot every 24 h, kept so many days; the compacted levels since the oldest of them,
    half a day more on average; level 0 for 5 minutes, or as long as the levels."""
    end = days * DAY_S
    sizes = sizes_at(known, rows_at(known, end))
    since = (kept_days + 0.5) * DAY_S
    stored = {
        f"levels of {width} s": since / width * sizes.newest[width] for width in cost.LTX_LEVELS_S
    }
    stored["files of 1 s"] = (since if seconds_too else 300) * sizes.newest[1]
    stored["snapshots"] = sum(
        sizes_at(known, rows_at(known, end - age * DAY_S)).snapshot for age in range(kept_days + 1)
    )
    stored = {kind: cost.LTX_FACTOR * size for kind, size in stored.items()}
    puts = days * (DAY_S + sum(DAY_S / width for width in cost.LTX_LEVELS_S) + 1)
    return stored, cost.Usage(sum(stored.values()), puts, days * 24 * cost.LTX_LISTS_PER_HOUR, 0)


def row(name: str, promise: str, usage: cost.Usage) -> str:
    bills = " | ".join(
        f"{cost.bill(usage, prices).storage:.2f} + {cost.bill(usage, prices).requests:.2f}"
        for prices in cost.PRICES
    )
    return (
        f"| {name} | {promise} | {usage.stored_bytes / 1e9:.2f} | {usage.puts:,.0f} | "
        f"{usage.lists:,.0f} | {usage.gets:,.0f} | {bills} |"
    )


def table(known: Sequence[Sizes], *, days: int = DAYS, step_hours: int = 6) -> list[str]:
    """Both systems at each retention, then what the bytes here are made of."""
    ours = {
        name: our_month(known, rules, days=days, step_hours=step_hours)
        for name, rules in RULES.items()
    }
    head = [
        "system",
        "what can be restored",
        "GB stored",
        "PUT",
        "LIST",
        "GET/HEAD",
        *(prices.name for prices in cost.PRICES),
    ]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for kept, name, promise in ((1, "1 day", "1 day"), (7, "7 days", "7 days")):
        lines.append(
            row(f"replicator, {name}", f"every transaction of {promise}", ours[name].usage)
        )
        default = " (its defaults)" if kept == 1 else ""
        lines.append(
            row(
                f"Litestream, {name}{default}",
                f"every 30 s of {promise} to one more",
                their_month(known, kept, days=days)[1],
            )
        )
        lines.append(
            row(
                f"Litestream, {name}, level 0 kept",
                "every second of the same",
                their_month(known, kept, days=days, seconds_too=True)[1],
            )
        )
    lines.append(
        row(
            "replicator, defaults",
            "every transaction of 7 days, hours of 30, days of 90",
            ours["defaults"].usage,
        )
    )
    lines += [
        "",
        "| replicator, at the end of the month, GB | defaults | 7 days | 1 day |",
        "|---|---:|---:|---:|",
    ]
    for kind in ("snapshots", "5-minute merges", "hourly merges", "segments"):
        lines.append(
            f"| {kind} | "
            + " | ".join(f"{ours[name].stored.get(kind, 0) / 1e9:.3f}" for name in RULES)
            + " |"
        )
    for label, numbers in (
        ("objects", [f"{ours[n].objects:,}" for n in RULES]),
        ("peak of the month", [f"{ours[n].peak / 1e9:.3f}" for n in RULES]),
    ):
        lines.append(f"| {label} | {' | '.join(numbers)} |")
    return lines


def main() -> None:
    steady = [measure(STEADY_ROWS, HOUR_S, steady=True)]
    growing = [measure(rows, HOUR_S, steady=False) for rows in GROWING_ROWS]
    lines = [HEAD]
    for title, known in (
        (f"A database of {STEADY_ROWS:,} orders (the oldest go)", steady),
        (
            f"A database that grows from nothing to {rows_at(growing, DAYS * DAY_S):,.0f} orders",
            growing,
        ),
    ):
        lines += [f"## {title}", "", *table(known), "", "Bytes measured:", ""]
        lines += [
            "| rows | segment of 1 s | 5 min | newest images of 1 s / 30 s / 5 min / 1 h "
            "| snapshot |",
            "|---:|---:|---:|---|---:|",
        ]
        lines += [
            f"| {k.rows:,} | {k.segment:,.0f} | {k.five_minutes:,.0f} | "
            f"{' / '.join(f'{size:,.0f}' for size in k.newest.values())} | "
            f"{k.snapshot:,} |"
            for k in known
        ] + [""]
    text = "\n".join(lines)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
