"""Every error the project raises: one class per decision a caller can make.

    class                      exit  code                  raised when
    ReplicatorError              1   error                 no class below names the failure
    ├── ConfigError              2   config                a setting or an argument cannot work
    │   ├── BucketMissing        2   bucket_missing        the bucket does not exist
    │   └── DatabaseUnusable     2   database_unusable     the file cannot be replicated as it is
    ├── DamageError              3   damage                stored bytes are not the bytes written
    ├── CheckFailed              3   check_failed          a statement about the data is false
    ├── GapError                 4   gap                   the archive does not reach the target
    ├── StoreUnavailable         5   store_unavailable     the store does not answer; retry later
    ├── NotDurable               5   not_durable           data is not in the store yet
    │   └── CacheFull            5   cache_full            the cache has reached its limit
    ├── RefusedError             6   refused               an action is forbidden
    │   ├── AccessDenied         6   access_denied         the store refused the credentials
    │   ├── Fenced               6   fenced                another writer owns the archive
    │   └── StoreUnsafe          6   store_unsafe          the store breaks a required guarantee
    ├── LocalIOError             7   local_io              a local file operation failed
    │   ├── DiskFull             7   disk_full             the local disk has no space left
    │   ├── TargetExists         7   target_exists         a file occupies the restore's output
    │   ├── LedgerDamaged        7   ledger_damaged        the cache's ledger cannot be trusted
    │   └── LedgerTooNew         7   ledger_too_new        a newer version wrote the ledger
    ├── AlreadyRunning           8   already_running       another process has the lock
    ├── NoBackup                 9   no_backup             the archive is empty
    ├── NotRunning               1   not_running           no sidecar answers for the database
    ├── Cancelled                1   cancelled             the caller stopped the operation
    ├── ContinuityLost           1   continuity_lost       the WAL lost frames not captured yet
    │   └── ChangedOutside       1   changed_outside       the file was written without its WAL
    ├── DatabaseReplaced         1   database_replaced     the path names another file now
    ├── DatabaseBusy             1   database_busy         another process keeps a lock
    └── StoreAnswer              1   store_answer          an outcome, not a failure
        ├── ObjectExists         1   object_exists         a conditional write found the key taken
        ├── ObjectMissing        1   object_missing        no object has that key
        ├── UploadMissing        1   upload_missing        the multipart upload does not exist
        └── CopyRefused          1   copy_refused          the store cannot copy part of an object

A class owns its exit code and its default code. An instance carries the message (lower case, no
final stop), a hint with the next step, and a code, which a raise site may refine. Its values are
attributes; ``None`` or ``""`` means unknown. Programs and tests decide by class, code and values,
never by the text. Every error can be pickled and copied.

Refuses everything that needs I/O: a path is kept as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ReplicatorError(Exception):
    """Root of the tree. ``str(error)`` is the message; ``hint`` the next step, or ``""``."""

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""
    values: ClassVar[tuple[str, ...]] = ()  # the attributes that describe the failure
    code: str = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint
        if code:
            self.code = code

    def to_dict(self) -> dict[str, Any]:
        """JSON form: ``error``, ``hint``, ``code``, ``kind``, ``exit_code``, the known values."""
        document = {
            "error": str(self),
            "hint": self.hint,
            "code": self.code,
            "kind": type(self).__name__,
            "exit_code": self.exit_code,
        }
        known = {name: getattr(self, name) for name in self.values}
        return document | {name: value for name, value in known.items() if value not in (None, "")}


def from_dict(document: Mapping[str, Any]) -> ReplicatorError:
    """The error that :meth:`ReplicatorError.to_dict` described, e.g. in another process.

    A ``kind`` that is not defined here becomes a plain :class:`ReplicatorError`.
    """
    kind = globals().get(document.get("kind", ""))
    if not (isinstance(kind, type) and issubclass(kind, ReplicatorError)):
        kind = ReplicatorError
    values = {name: document[name] for name in kind.values if name in document}
    hint, code = document.get("hint", ""), document.get("code", "")
    return kind(document["error"], hint=hint, code=code, **values)


class ConfigError(ReplicatorError):
    """``setting`` is the name of the setting or argument that cannot work."""

    exit_code = 2
    values: ClassVar[tuple[str, ...]] = ("setting",)
    code = "config"

    def __init__(self, message: str, *, setting: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.setting = setting


class BucketMissing(ConfigError):
    default_hint = "create the bucket, or correct --bucket / --endpoint-url"
    values = ("setting", "bucket")
    code = "bucket_missing"

    def __init__(
        self, message: str, *, bucket: str = "", setting: str = "", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, setting=setting, hint=hint, code=code)
        self.bucket = bucket


class DatabaseUnusable(ConfigError):
    """``path`` is the database that cannot be replicated as it is."""

    values = ("setting", "path")
    code = "database_unusable"

    def __init__(
        self, message: str, *, path: object = "", setting: str = "", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, setting=setting, hint=hint, code=code)
        self.path = str(path)


class DamageError(ReplicatorError):
    """Stored bytes are not the bytes that were written. ``key`` names the object."""

    exit_code = 3
    default_hint = "restore with --allow-older to get the newest state that can be proved"
    values = ("key",)
    code = "damage"

    def __init__(self, message: str, *, key: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.key = key


class CheckFailed(ReplicatorError):
    """``statement`` is the SQL that gave something else than one true value."""

    exit_code = 3
    values = ("statement",)
    code = "check_failed"

    def __init__(
        self, message: str, *, statement: str = "", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.statement = statement


class GapError(ReplicatorError):
    """Transactions ``first_missing`` to ``last_missing`` are not in the archive.

    ``restorable`` holds the first and last txid of the range that can be restored.
    """

    exit_code = 4
    values = ("first_missing", "last_missing", "restorable")
    code = "gap"

    def __init__(
        self,
        message: str,
        *,
        first_missing: int | None = None,
        last_missing: int | None = None,
        restorable: tuple[int, int] | None = None,
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.first_missing = first_missing
        self.last_missing = last_missing
        self.restorable = restorable and (restorable[0], restorable[1])  # JSON gives a list


class StoreUnavailable(ReplicatorError):
    """``operation`` is the request that failed, e.g. ``GET``; ``key`` its object."""

    exit_code = 5
    default_hint = "check the network and the endpoint, then try again"
    values = ("operation", "key")
    code = "store_unavailable"

    def __init__(
        self, message: str, *, operation: str = "", key: str = "", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.operation = operation
        self.key = key


class NotDurable(ReplicatorError):
    """Transaction ``txid`` is not durable; ``durable_txid`` is the newest one that is."""

    exit_code = 5
    values: ClassVar[tuple[str, ...]] = ("txid", "durable_txid")
    code = "not_durable"

    def __init__(
        self,
        message: str,
        *,
        txid: int | None = None,
        durable_txid: int | None = None,
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.txid = txid
        self.durable_txid = durable_txid


class CacheFull(NotDurable):
    """``pending_bytes`` wait for the upload and may not exceed ``limit_bytes``.

    The capture allows the WAL to reset, and catches up from the database later.
    """

    values = ("pending_bytes", "limit_bytes")
    code = "cache_full"

    def __init__(
        self,
        message: str,
        *,
        pending_bytes: int | None = None,
        limit_bytes: int | None = None,
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.pending_bytes = pending_bytes
        self.limit_bytes = limit_bytes


class RefusedError(ReplicatorError):
    exit_code = 6
    code = "refused"


class AccessDenied(RefusedError):
    """``operation`` is the request that the store refused; ``key`` its object."""

    default_hint = "check the access key, the secret and the policy of the bucket"
    values = ("operation", "key")
    code = "access_denied"

    def __init__(
        self, message: str, *, operation: str = "", key: str = "", hint: str = "", code: str = ""
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.operation = operation
        self.key = key


class Fenced(RefusedError):
    """``holder`` describes the writer that owns the archive at ``url``; it wrote ``txid``."""

    values = ("holder", "url", "txid")
    code = "fenced"

    def __init__(
        self,
        message: str,
        *,
        holder: str = "",
        url: str = "",
        txid: int | None = None,
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.holder = holder
        self.url = url
        self.txid = txid


class StoreUnsafe(RefusedError):
    """``url`` is the store that breaks a guarantee the archive depends on."""

    values = ("url",)
    code = "store_unsafe"

    def __init__(self, message: str, *, url: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.url = url


class LocalIOError(ReplicatorError):
    """``path`` is the file or directory, ``errno`` the number the system gave."""

    exit_code = 7
    values: ClassVar[tuple[str, ...]] = ("path", "errno")
    code = "local_io"

    def __init__(
        self,
        message: str,
        *,
        path: object = "",
        errno: int | None = None,
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.path = str(path)
        self.errno = errno


class DiskFull(LocalIOError):
    default_hint = "free some space; nothing was lost"
    code = "disk_full"


class TargetExists(LocalIOError):
    code = "target_exists"


class LedgerDamaged(LocalIOError):
    default_hint = "a damaged ledger is set aside, and the cache starts empty"
    code = "ledger_damaged"


class LedgerTooNew(LocalIOError):
    """The ledger at ``path`` has format ``found``; this version knows formats up to ``known``."""

    default_hint = "start the newer version again; the ledger was not changed"
    values = ("path", "errno", "found", "known")
    code = "ledger_too_new"

    def __init__(
        self,
        message: str,
        *,
        found: int | None = None,
        known: int | None = None,
        path: object = "",
        errno: int | None = None,
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, path=path, errno=errno, hint=hint, code=code)
        self.found = found
        self.known = known


class AlreadyRunning(ReplicatorError):
    """Process ``pid`` holds the lock at ``path``."""

    exit_code = 8
    values = ("pid", "path")
    code = "already_running"

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        path: object = "",
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.pid = pid
        self.path = str(path)


class NoBackup(ReplicatorError):
    """``url`` is the address without a backup."""

    exit_code = 9
    values = ("url",)
    code = "no_backup"

    def __init__(self, message: str, *, url: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.url = url


class NotRunning(ReplicatorError):
    """No sidecar answers in the cache directory ``path``."""

    default_hint = "start one with `replicator run`"
    values = ("path",)
    code = "not_running"

    def __init__(self, message: str, *, path: object = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.path = str(path)


class Cancelled(ReplicatorError):
    """The operation ended early because its caller stops."""

    code = "cancelled"


class ContinuityLost(ReplicatorError):
    """The WAL no longer holds the frames that follow the captured position."""

    code = "continuity_lost"


class ChangedOutside(ContinuityLost):
    """The database file differs from the state its WAL produced: another program wrote to it."""

    code = "changed_outside"


class DatabaseReplaced(ReplicatorError):
    """The file at ``path`` is not the one that was opened (replaced, deleted, recreated)."""

    values = ("path",)
    code = "database_replaced"

    def __init__(self, message: str, *, path: object = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.path = str(path)


class DatabaseBusy(ReplicatorError):
    """Another process holds a lock on the database at ``path`` that excludes WAL readers."""

    values = ("path",)
    code = "database_busy"

    def __init__(self, message: str, *, path: object = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.path = str(path)


class StoreAnswer(ReplicatorError):
    """The store's answer is an outcome, and the caller decides. ``key`` names the object."""

    values = ("key",)
    code = "store_answer"

    def __init__(self, message: str, *, key: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.key = key


class ObjectExists(StoreAnswer):
    code = "object_exists"


class ObjectMissing(StoreAnswer):
    code = "object_missing"


class UploadMissing(StoreAnswer):
    code = "upload_missing"


class CopyRefused(StoreAnswer):
    code = "copy_refused"
