"""The report of one restore: of the plan, of the rebuilt file, or of a file that was left alone.

Owns the words for the proof, and which figures come from metadata alone. Refuses to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from replicator.model import RestoreReport
from replicator.recovery.known_archive import KnownArchive
from replicator.recovery.planner import Planner, Recovered
from replicator.recovery.point_in_time import committed_at
from replicator.recovery.progress import Meter
from replicator.system.files import about

Verify = Literal["none", "quick", "full"]


@dataclass(frozen=True, slots=True)
class PlannedRestore:
    """The report of a plan. ``exact``: its checksum and its pages are those of its transaction, and
    not those at the end of an object that goes further."""

    report: RestoreReport
    exact: bool


def untouched(output: Path, url: str) -> RestoreReport:
    """The report of an output that exists and was left alone."""
    with about(output):
        size = output.stat().st_size
    return RestoreReport(
        output=str(output),
        url=url,
        generation="",
        txid=0,
        committed_at=None,
        pages=0,
        page_size=0,
        size=size,
        checksum=0,
        snapshot_txid=0,
        objects=0,
        downloaded_bytes=0,
        seconds=0.0,
        verified="nothing: the output exists and was left alone",
    )


def planned(
    planner: Planner, known: KnownArchive, output: Path, url: str, meter: Meter
) -> PlannedRestore:
    """The report of a dry run: sizes are those of the plan, figures those of the metadata."""
    plan = planner.plan_to_known_end()
    facts = known.proved(plan.segments[-1]) if plan.segments else None
    trailer = known.reader.tail(plan.snapshot).trailer
    page_size = trailer.payload_bytes // max(1, trailer.pages)
    end = facts.last_txid if facts else trailer.last_txid
    txid = end if plan.txid is None else plan.txid
    lost, avoided = planner.losses(txid)
    report = RestoreReport(
        output=str(output),
        url=url,
        generation=plan.snapshot.generation,
        txid=txid,
        committed_at=committed_at(known, txid),
        pages=facts.pages if facts else trailer.pages,
        page_size=page_size,
        size=(facts.pages if facts else trailer.pages) * page_size,
        checksum=facts.checksum_after if facts else trailer.checksum_after,
        snapshot_txid=plan.snapshot.txid,
        objects=plan.objects,
        downloaded_bytes=plan.size,
        seconds=meter.seconds,
        verified="nothing: this is a plan",
        lost_txids=lost,
        avoided=avoided,
    )
    return PlannedRestore(report, exact=end == txid)


def restored(
    done: Recovered,
    output: Path,
    url: str,
    meter: Meter,
    *,
    proof: str,
    inconclusive: tuple[str, ...],
) -> RestoreReport:
    """The report of a published file; ``proof`` is that of :func:`proof_of`."""
    rebuilt, plan = done.rebuilt, done.plan
    return RestoreReport(
        output=str(output),
        url=url,
        generation=plan.snapshot.generation,
        txid=rebuilt.txid,
        committed_at=rebuilt.committed_at,
        pages=rebuilt.state.pages,
        page_size=rebuilt.page_size,
        size=rebuilt.state.pages * rebuilt.page_size,
        checksum=rebuilt.state.checksum,
        snapshot_txid=plan.snapshot.txid,
        objects=plan.objects,
        downloaded_bytes=meter.downloaded,
        seconds=meter.seconds,
        verified=proof,
        inconclusive=inconclusive,
        lost_txids=done.lost,
        avoided=done.avoided,
    )


def proof_of(done: Recovered, verify: Verify, *, sealed: bool) -> str:
    """The checks that a file has passed, in words. ``sealed``: an integrity key was given."""
    resumed = " but for the parts an earlier attempt left, which were hashed again"
    proof = [
        "SHA-256 of every object" + (resumed if done.rebuilt.resumed else ""),
        "WAL checksums",
        "database checksum",
    ]
    if done.rebuilt.sealed:
        proof.append("seals" if sealed else "not the seals, because no integrity key was given")
    if verify != "none":
        proof.append("SQLite's " + ("integrity_check" if verify == "full" else "quick_check"))
    return ", ".join(proof)
