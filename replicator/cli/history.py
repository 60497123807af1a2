"""``replicator history``: what the bucket holds of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.cli import options, output

if TYPE_CHECKING:
    from replicator.history import History


def command(
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    as_json: options.AsJson = False,
) -> None:
    """List what the bucket holds and what can be restored.

    Without --prefix, of every database in the bucket.
    """
    from replicator.history import histories

    found = histories(options.target(bucket, prefix, url, endpoint_url, region, profile))
    if as_json:
        output.emit_json([output.plain(each) for each in found])
    else:
        for each in found:
            show(each)


def show(found: History, *, now: float | None = None) -> None:
    """The window first, then what it is made of, oldest first."""
    output.say(f"[bold]{output.safe(found.url)}[/]")
    newest = output.moment(found.last_commit_ms) if found.last_commit_ms else "at an unknown time"
    output.facts([
        ("restorable", f"transactions {found.first_txid:,} … {found.last_txid:,}"),
        ("newest commit", f"{newest}, {output.ago(found.last_commit_ms, now)}"),
        ("last append", output.ago(found.last_stored_ms, now)),
        ("log", f"{output.plural(found.segments, 'segment')}, {output.size(found.segment_bytes)}"),
        ("merged log", f"{output.plural(found.merged, 'object')}, "
                       f"{output.size(found.merged_bytes)}"),
        ("snapshots", f"{output.plural(len(found.snapshots), 'object')}, "
                      f"{output.size(found.snapshot_bytes)}"),
        ("total", output.size(found.total_bytes)),
    ])
    output.say()
    output.table(("generation", ">from", ">to", ">snapshots", ">size"), (
        (each.id, f"{each.first_txid:,}", f"{each.last_txid:,}", f"{each.snapshots:,}",
         output.size(each.size)) for each in found.generations))
    output.say()
    output.table(("snapshot of", "stored", ">size", "generation"), (
        (f"{each.txid:,}", output.moment(each.stored_ms), output.size(each.size), each.generation)
        for each in found.snapshots))
