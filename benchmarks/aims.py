"""What was aimed at, and whether the figures meet it. Every line stands here whatever comes out; a
line whose scenario was not run, or failed, says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.outcome import ALONE, OURS, THEIRS, Outcome
from benchmarks.systems.copies import Compressed

Outcomes = dict[str, Outcome]
Take = Callable[[Outcomes], float | None]
PLAIN = Compressed.name
ENOUGH = 500  # objects more, for a difference in seconds that means something


@dataclass(frozen=True)
class Aim:
    """``take`` gives the figure, None where it was not measured; it must not exceed ``bound``
    (or, with ``at_least``, not fall below it)."""

    what: str
    bound: float
    unit: str
    take: Take
    at_least: bool = False

    def row(self, outcomes: Outcomes) -> str:
        found = self.take(outcomes)
        sign = "≥" if self.at_least else "≤"
        aim = f"{sign} {self.bound:g}{self.unit}"
        if found is None:
            return f"| {self.what} | {aim} | | not measured |"
        met = found >= self.bound if self.at_least else found <= self.bound
        return (
            f"| {self.what} | {aim} | {found:.3g}{self.unit} | {'met' if met else '**missed**'} |"
        )


def ratio(case: str, name: str, other: str = THEIRS) -> Take:
    """Ours divided by the other's."""
    return lambda outcomes: outcomes[case].ratio(name, other) if case in outcomes else None


def inverse(case: str, name: str, other: str = THEIRS) -> Take:
    """The other's divided by ours."""

    def take(outcomes: Outcomes) -> float | None:
        found = ratio(case, name, other)(outcomes)
        return 1 / found if found else None

    return take


def ours(case: str, name: str) -> Take:
    return lambda outcomes: outcomes[case].median(OURS, name) if case in outcomes else None


def writes(case: str) -> Take:
    """PUT and POST, ours divided by Litestream's."""

    def take(outcomes: Outcomes) -> float | None:
        if case not in outcomes:
            return None
        counts = [
            [outcomes[case].median(system, f"requests {kind}") for kind in ("PUT", "POST")]
            for system in (OURS, THEIRS)
        ]
        if any(count is None for pair in counts for count in pair):
            return None
        mine, others = (sum(count or 0 for count in pair) for pair in counts)
        return mine / others if others else None

    return take


def added(case: str, name: str) -> Take:
    """How far our median lies above the slowest run of the application alone, as a ratio; up to
    1 the difference cannot be told from that between its own runs."""

    def take(outcomes: Outcomes) -> float | None:
        alone = outcomes[case].values(ALONE, name) if case in outcomes else []
        mine = ours(case, name)(outcomes)
        return mine / max(alone) if mine is not None and alone else None

    return take


def per_hundred(outcomes: Outcomes) -> float | None:
    """Seconds that a hundred more objects add to a restore, from the least to the most segments."""
    points = sorted(
        (found, seconds)
        for name, outcome in outcomes.items()
        if name.endswith("-segments")
        and (found := outcome.median(OURS, "stored objects")) is not None
        and (seconds := outcome.median(OURS, "wall s")) is not None
    )
    if not points or points[-1][0] - points[0][0] < ENOUGH:
        return None
    (few, short), (many, long) = points[0], points[-1]
    return 100 * (long - short) / (many - few)


def memory_growth(outcomes: Outcomes) -> float | None:
    """Peak memory of the restore of the largest database, divided by that of 100 MB."""
    sizes = {
        float(name.removeprefix("size-")): outcome.median(OURS, "restore: peak rss")
        for name, outcome in outcomes.items()
        if name.startswith("size-")
    }
    found = {size: peak for size, peak in sizes.items() if peak}
    most = max(found, default=0.0)
    return found[most] / found[100.0] if 100.0 in found and most > 100.0 else None


BESIDE = "× Litestream"
AIMS = (
    Aim("OLTP: bytes uploaded", 0.4, BESIDE, ratio("oltp", "bytes up")),
    Aim("OLTP of orders: bytes uploaded", 0.4, BESIDE, ratio("oltp-real", "bytes up")),
    Aim("OLTP: PUT and POST", 0.6, BESIDE, writes("oltp")),
    Aim("OLTP: CPU", 1, BESIDE, ratio("oltp", "cpu s")),
    Aim("OLTP: peak memory", 1.2, BESIDE, ratio("oltp", "peak rss")),
    Aim("burst: CPU", 0.5, BESIDE, ratio("burst", "cpu s")),
    Aim("burst: peak memory", 1, BESIDE, ratio("burst", "peak rss")),
    *(
        Aim(
            f"first snapshot of {size} MB{rows} and its first compaction: bytes uploaded",
            0.35,
            BESIDE,
            ratio(f"snapshot-{size}{suffix}", "later: bytes up"),
        )
        for size in (100, 1000)
        for rows, suffix in (("", ""), (" of orders", "-real"))
    ),
    Aim("lone commit: median until it is in the bucket", 40, " ms", ours("lone", "lag p50 ms")),
    Aim("idle: requests an hour", 0, "", ours("idle", "requests an hour")),
    Aim("restore of 600 MB: speed", 4, BESIDE, inverse("restore-600", "wall s"), at_least=True),
    Aim(
        "restore of 600 MB: time, beside a plain download and zstd -d of as many bytes",
        2,
        "× plain",
        ratio("restore-600", "wall s", PLAIN),
    ),
    Aim("restore of many segments: each hundred objects more", 1, " s", per_hundred),
    Aim(
        "restore of the largest database: peak memory, beside that of 100 MB",
        1.5,
        "×",
        memory_growth,
    ),
    Aim(
        "application at 200 transactions/s: p99, beside the slowest run alone",
        1,
        "×",
        added("oltp", "latency p99 ms"),
    ),
    Aim(
        "application at 200 transactions/s: p99.9, beside the slowest run alone",
        1,
        "×",
        added("oltp", "latency p99.9 ms"),
    ),
    Aim(
        "saturated writer: time for as many transactions",
        1.3,
        "× alone",
        inverse("saturated", "transactions/s", ALONE),
    ),
    Aim("saturated writer: longest wait", 1, BESIDE, ratio("saturated", "latency longest ms")),
)


def table(outcomes: Outcomes) -> list[str]:
    return [
        "## Against the aims",
        "",
        "Computed from the medians below. (The first sign of an "
        "outage, at most 5 s, is a matter of the tests.)",
        "",
        "| | aim | measured | |",
        "|---|---:|---:|---|",
        *(aim.row(outcomes) for aim in AIMS),
        "",
    ]
