"""Restores with limits of the test, which the public function does not take."""

from replicator.archive.point import RestorePoint
from replicator.recovery.api import RestoreRequest, recover
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.progress import Meter
from replicator.system.files import Files


def request(*, txid=None, timestamp=None, **wishes):
    """A request with the defaults of ``restore()``."""
    defaults = {
        "output": None,
        "if_missing": False,
        "dry_run": False,
        "overwrite": False,
        "allow_older": False,
        "verify": "none",
    }
    return RestoreRequest(point=RestorePoint(txid, timestamp), **defaults | wishes)


def restore_with(limits, *, store, output, prefix="app.db", files=None, progress=None, **options):
    """``restore()`` with ``limits``, which maps fields of `RecoveryLimits` to values."""
    return recover(
        request(output=output, **options),
        store,
        prefix,
        files=files or Files(),
        meter=Meter(progress),
        limits=RecoveryLimits(**limits),
    )
