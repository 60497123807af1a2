"""Restores with limits of the test, which the public function does not take."""

from replicator.recovery.api import RestoreRequest, recover
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.progress import Meter
from replicator.system.files import Files


def restore_with(limits, *, store, output, prefix="app.db", files=None, progress=None, **options):
    """``restore()`` with ``limits``, which maps fields of `RecoveryLimits` to values."""
    defaults = {
        "txid": None,
        "timestamp": None,
        "if_missing": False,
        "dry_run": False,
        "overwrite": False,
        "allow_older": False,
        "verify": "none",
    }
    return recover(
        RestoreRequest(output=output, **defaults | options),
        store,
        prefix,
        files=files or Files(),
        meter=Meter(progress),
        limits=RecoveryLimits(**limits),
    )
