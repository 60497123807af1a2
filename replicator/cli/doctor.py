"""``replicator doctor``: check everything that a replicator needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from replicator.cli import options, output
from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.inspect.doctor import Check

_MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[bold red]✗[/]"}


def command(
    *,
    db: options.Database,
    settings: options.StoreSettings,
    as_json: options.AsJson = False,
) -> int:
    """Check the database, the disk, the credentials and the store.

    Exit code 1 if a check fails; a warning is not a failure.
    """
    from replicator.config.settings import SqliteReplicatorConfig
    from replicator.inspect.doctor import doctor

    checks = doctor(SqliteReplicatorConfig.from_env(db_path=db, **settings.given))
    verdicts = json_report(checks) if as_json else show(checks)
    return ReplicatorError.exit_code if "fail" in verdicts else 0


def json_report(checks: Iterable[Check]) -> list[str]:
    """All checks as one JSON array; returns the verdicts."""
    done = list(checks)
    output.emit_json(done)
    return [check.verdict for check in done]


def show(checks: Iterable[Check]) -> list[str]:
    """Each check as soon as it is done, with the remedy below; returns the verdicts."""
    verdicts = []
    for check in checks:
        output.say(f"{_MARKS[check.verdict]} {check.name:<15} {output.safe(check.detail)}")
        if check.remedy and check.verdict != "ok":
            output.say(f"  {'':<15} [dim]→ {output.safe(check.remedy)}[/]")
        verdicts.append(str(check.verdict))
    return verdicts
