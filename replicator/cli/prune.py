"""``replicator prune``: plan or carry out the deletions by the rules of retention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output
from replicator.errors import AccessDenied

if TYPE_CHECKING:
    from replicator.retention.api import Pruned, PrunePlan, Verdict


def command(
    *,
    location: options.Location,
    retention: options.RetentionRules,
    yes: Annotated[bool, typer.Option("--yes", help="delete; without it nothing changes")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="list the objects that stay as well, with the reason")
    ] = False,
    as_json: options.AsJson = False,
) -> int:
    """Plan the deletion of the objects that no rule keeps, with reasons; --yes carries it out.

    Safe during replication and restores. Set the same rules as for the replicator. Exit code 6 if
    the bucket forbids deletions.
    """
    from replicator.retention.api import prune

    plan, done = prune(location.address, retention.rules, delete=yes)
    if as_json:
        output.emit_json(document(plan, done))
    else:
        show(plan, done, everything=everything)
    return AccessDenied.exit_code if done is not None and done.refused else 0


def document(plan: PrunePlan, done: Pruned | None) -> dict[str, object]:
    """The plan and the deletions for programs."""
    decision = plan.decision
    return {
        "window_from": decision.window_from,
        "points": decision.points,
        "lost_pins": decision.lost_pins,
        "objects": decision.verdicts,
        "deleted": None if done is None else [verdict.key for verdict in done.deleted],
        "deleted_bytes": None if done is None else done.size,
        "unproved": None if done is None else [verdict.key for verdict in done.unproved],
        "versioned": done is not None and done.versioned,
        "refused": "" if done is None else done.refused,
    }


def show(plan: PrunePlan, done: Pruned | None, *, everything: bool) -> None:
    """Objects with their reasons, then the sums."""
    decision = plan.decision
    kept = [verdict for verdict in decision.verdicts if verdict.keep]
    if everything:
        _list(kept, "[green]keep[/]")
    _list(decision.deletions, "[red]delete[/]")
    if decision.deletions or everything:
        output.say()
    rows = [
        ("every transaction", f"since {decision.window_from:,}"),
        ("older points", output.plural(len(decision.points), "point")),
        ("keep", _sum(kept)),
        ("delete", _sum(decision.deletions)),
    ]
    rows += [
        ("pin", f"[bold red]transaction {txid:,} cannot be restored[/]")
        for txid in decision.lost_pins
    ]
    output.facts(rows)
    output.say()
    _say_done(done, nothing=not decision.deletions)


def _say_done(done: Pruned | None, *, nothing: bool) -> None:
    if nothing:
        output.say("nothing to delete")
    elif done is None:
        output.say("this is a plan and nothing was deleted; [bold]--yes[/] carries it out")
    else:
        output.say(f"[green]deleted[/] {_sum(done.deleted)}")
        if done.unproved:
            output.say(f"kept {_sum(done.unproved)} because their merge could not be verified")
        if done.versioned:
            output.say(
                "the bucket keeps the deleted objects as noncurrent versions, for as long as its "
                "lifecycle rules say"
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
    return output.amount(len(verdicts), "object", sum(verdict.size for verdict in verdicts))
