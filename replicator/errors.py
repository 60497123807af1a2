"""Every error the project raises, one class per decision a caller can make.

    ReplicatorError             1   something failed that no class below names
    ├── ConfigError             2   a setting or an argument cannot work
    │   ├── BucketMissing       2   the bucket does not exist
    │   └── DatabaseUnusable    2   the file cannot be followed as it is
    ├── DamageError             3   stored bytes are not what was written
    ├── CheckFailed             3   a statement that must hold of the data does not
    ├── GapError                4   the target is outside what can be restored
    ├── StoreUnavailable        5   the store does not answer; trying later may work
    ├── NotDurable              5   data is not in the store yet
    ├── RefusedError            6   somebody said no
    │   ├── AccessDenied        6   the store refused the credentials or the action
    │   ├── Fenced              6   another writer holds the log
    │   └── StoreUnsafe         6   the store breaks a promise the log stands on
    ├── LocalIOError            7   a local file operation failed
    │   ├── DiskFull            7   no space left on the local disk
    │   └── TargetExists        7   a file stands where the restore would go
    ├── AlreadyRunning          8   another replicator works on this database
    ├── NoBackup                9   there is nothing to restore
    └── StoreAnswer             1   not failures, answers; the caller decides
        ├── ObjectExists        1   a conditional write found the key taken
        ├── ObjectMissing       1   no object under that key
        ├── UploadMissing       1   no such multipart upload (any more)
        └── CopyRefused         1   the store does not copy a part out of another object

A class owns its exit code; an instance carries its message, lower case and without a final
stop, and a hint that says what to do next.
"""

from __future__ import annotations


class ReplicatorError(Exception):
    """Root of the tree. ``str(error)`` is the message; ``hint`` the next step, or ``""``."""

    exit_code = 1
    default_hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint


class ConfigError(ReplicatorError):
    exit_code = 2


class BucketMissing(ConfigError):
    default_hint = "create the bucket, or correct --bucket / --endpoint-url"


class DatabaseUnusable(ConfigError):
    pass


class DamageError(ReplicatorError):
    """Stored bytes are not what was written. ``key`` names the object, when one is known."""

    exit_code = 3
    default_hint = "restore with --allow-older to get the newest state that can be proved"

    def __init__(self, message: str, *, key: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class CheckFailed(ReplicatorError):
    exit_code = 3


class GapError(ReplicatorError):
    exit_code = 4


class StoreUnavailable(ReplicatorError):
    exit_code = 5
    default_hint = "check the network and the endpoint, then try again"


class NotDurable(ReplicatorError):
    exit_code = 5


class RefusedError(ReplicatorError):
    exit_code = 6


class AccessDenied(RefusedError):
    default_hint = "check the access key, the secret and the policy of the bucket"


class Fenced(RefusedError):
    pass


class StoreUnsafe(RefusedError):
    pass


class LocalIOError(ReplicatorError):
    exit_code = 7


class DiskFull(LocalIOError):
    default_hint = "free some space; nothing was lost"


class TargetExists(LocalIOError):
    pass


class AlreadyRunning(ReplicatorError):
    exit_code = 8


class NoBackup(ReplicatorError):
    exit_code = 9


class StoreAnswer(ReplicatorError):
    """An answer of the store that is an outcome, not a failure."""


class ObjectExists(StoreAnswer):
    pass


class ObjectMissing(StoreAnswer):
    pass


class UploadMissing(StoreAnswer):
    pass


class CopyRefused(StoreAnswer):
    pass
