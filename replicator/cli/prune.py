"""``replicator prune``: what the rules keep and delete, and why; with ``--yes`` it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output
from replicator.errors import AccessDenied

if TYPE_CHECKING:
    from replicator.retention.api import Pruned, PrunePlan, Verdict


def command(
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    keep_every_transaction: options.KeepEveryTransaction = None,
    keep_hourly: options.KeepHourly = None,
    keep_daily: options.KeepDaily = None,
    keep_weekly: options.KeepWeekly = None,
    keep_monthly: options.KeepMonthly = None,
    keep_snapshots: options.KeepSnapshots = None,
    yes: Annotated[bool, typer.Option("--yes", help="delete; without it nothing changes")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="list what stays as well, with its reason")
    ] = False,
    as_json: options.AsJson = False,
) -> int:
    """Delete what no rule keeps: a plan with reasons, or with --yes the deed.

    Safe while a replicator runs and while somebody restores. Give it the rules that the
    replicator was given. Exit code 6 if the bucket forbids deletions.
    """
    from replicator.model import Retention
    from replicator.retention.api import prune

    rules = Retention(
        **options.given(
            every_transaction=keep_every_transaction,
            hourly=keep_hourly,
            daily=keep_daily,
            weekly=keep_weekly,
            monthly=keep_monthly,
            snapshots=keep_snapshots,
        )
    )
    address = options.address(bucket, prefix, url, endpoint_url, region, profile)
    plan, done = prune(address, rules, delete=yes)
    if as_json:
        output.emit_json(document(plan, done))
    else:
        show(plan, done, everything=everything)
    return AccessDenied.exit_code if done is not None and done.refused else 0


def document(plan: PrunePlan, done: Pruned | None) -> dict[str, object]:
    """The same for programs."""
    decision = plan.decision
    return {
        "window_from": decision.window_from,
        "points": [output.plain(point) for point in decision.points],
        "lost_pins": decision.lost_pins,
        "objects": [output.plain(verdict) for verdict in decision.verdicts],
        "deleted": None if done is None else [verdict.key for verdict in done.deleted],
        "deleted_bytes": None if done is None else done.size,
        "unproved": None if done is None else [verdict.key for verdict in done.unproved],
        "versioned": done is not None and done.versioned,
        "refused": "" if done is None else done.refused,
    }


def show(plan: PrunePlan, done: Pruned | None, *, everything: bool) -> None:
    """Objects with their reasons, then the sum."""
    decision = plan.decision
    stay = [verdict for verdict in decision.verdicts if verdict.keep]
    if everything:
        _list(stay, "[green]stays[/]")
    _list(decision.deletions, "[red]goes[/]")
    if decision.deletions or everything:
        output.say()
    rows = [
        ("every transaction", f"from {decision.window_from:,} on"),
        ("older points", output.plural(len(decision.points), "point")),
        ("stays", _sum(stay)),
        ("goes", _sum(decision.deletions)),
    ]
    rows += [
        ("pinned in vain", f"[bold red]{txid:,} cannot be restored[/]")
        for txid in decision.lost_pins
    ]
    output.facts(rows)
    output.say()
    _say_done(done, nothing=not decision.deletions)


def _say_done(done: Pruned | None, *, nothing: bool) -> None:
    if nothing:
        output.say("nothing to delete")
    elif done is None:
        output.say("nothing was deleted: this is a plan; [bold]--yes[/] carries it out")
    else:
        output.say(f"[green]deleted[/] {_sum(done.deleted)}")
        if done.unproved:
            output.say(f"kept {_sum(done.unproved)} whose merge could not be proved")
        if done.versioned:
            output.say(
                "the bucket keeps old versions of what was deleted; a lifecycle rule for "
                "noncurrent versions decides for how long"
            )
        if done.refused:
            output.say(f"[bold red]stopped:[/] {output.safe(done.refused)}")


def _list(verdicts: Sequence[Verdict], mark: str) -> None:
    for verdict in verdicts:
        output.say(
            f"{mark}  {output.safe(verdict.key)}  {output.size(verdict.size)}  "
            f"[dim]{output.safe(verdict.reason)}[/]"
        )


def _sum(verdicts: Sequence[Verdict]) -> str:
    size = sum(verdict.size for verdict in verdicts)
    return f"{output.plural(len(verdicts), 'object')}, {output.size(size)}"
