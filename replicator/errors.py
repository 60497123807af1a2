"""Every error the project raises: one class per decision a caller can make.

    class                      exit  code                  raised when
    ReplicatorError              1   error                 no class below names the failure
    ├── ConfigError              2   config                a setting or an argument cannot work
    │   ├── BucketMissing        2   bucket_missing        the bucket does not exist
    │   └── DatabaseUnusable     2   database_unusable     the file cannot be replicated as it is
    │       └── DatabaseMissing  2   database_missing      no file has the database's name
    ├── Unreadable               1   unreadable            an object cannot be read here
    │   ├── DamageError          3   damage                stored bytes are not the bytes written
    │   └── NewerFormat          1   newer_format          a newer program wrote the object
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
    │   ├── UnsafePath           7   unsafe_path           another user controls a path we work in
    │   ├── LedgerDamaged        7   ledger_damaged        the cache's ledger cannot be trusted
    │   └── LedgerTooNew         7   ledger_too_new        a newer version wrote the ledger
    ├── AlreadyRunning           8   already_running       another process has the lock
    │   └── CacheInUse           8   cache_in_use          for another database, with the same cache
    ├── NoBackup                 9   no_backup             the archive is empty
    ├── Inconclusive            10   inconclusive          a check cannot be made here
    ├── NotRunning               1   not_running           no sidecar answers for the database
    ├── Cancelled                1   cancelled             the caller stopped the operation
    ├── ContinuityLost           1   continuity_lost       the WAL lost frames not captured yet
    │   └── ChangedOutside       1   changed_outside       the file was written without its WAL
    ├── DatabaseReplaced         1   database_replaced     the path names another file now
    ├── QueueFull                1   queue_full            a write did not get room in its queue
    ├── MigrationError           1   migration             a migration cannot run, or failed
    ├── DatabaseBusy             1   database_busy         another process or thread keeps a lock
    └── StoreAnswer              1   store_answer          an outcome, not a failure
        ├── ObjectExists         1   object_exists         a conditional write found the key taken
        ├── ObjectMissing        1   object_missing        no object has that key
        ├── UploadMissing        1   upload_missing        the multipart upload does not exist
        └── CopyRefused          1   copy_refused          the store cannot copy part of an object

A class owns its exit code and its default code. An instance carries the message (lower case, no
final stop), a hint with the next step, and a code, which a raise site may refine. Its values are
attributes; ``None`` or ``""`` means unknown. Programs and tests decide by class, code and values,
never by the text. Every error can be pickled and copied.

Refuses everything that needs I/O: any path object is accepted, and kept as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, fields
from typing import Any, ClassVar


@dataclass(kw_only=True, eq=False, repr=False)
class ReplicatorError(Exception):
    """Root of the tree. ``str(error)`` is the message; ``hint`` the next step, or ``""``.

    The fields of a subclass are its values.

    >>> try:
    ...     SqliteReplicatorConfig(db_path="app.db")
    ... except ReplicatorError as error:
    ...     print(error.exit_code, error.code, error.hint)
    2 config set one: --bucket NAME, or --url s3://…
    """

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    message: InitVar[str] = field(kw_only=False)
    hint: str = ""
    code: str = ""  # a class sets its default code as a plain class attribute

    def __post_init__(self, message: str) -> None:
        Exception.__init__(self, message)
        self.hint = self.hint or self.default_hint
        self.code = self.code or type(self).code
        if "path" in vars(self):
            vars(self)["path"] = str(vars(self)["path"])

    @classmethod
    def value_names(cls) -> tuple[str, ...]:
        """Names of the attributes that describe a failure of this class."""
        return tuple(each.name for each in fields(cls) if each.name not in ("hint", "code"))

    def to_dict(self) -> dict[str, Any]:
        """JSON form: ``error``, ``hint``, ``code``, ``kind``, ``exit_code``, the known values."""
        document = {
            "error": str(self),
            "hint": self.hint,
            "code": self.code,
            "kind": type(self).__name__,
            "exit_code": self.exit_code,
        }
        known = {name: getattr(self, name) for name in self.value_names()}
        return document | {name: value for name, value in known.items() if value not in (None, "")}


ReplicatorError.code = "error"


def from_dict(document: Mapping[str, Any]) -> ReplicatorError:
    """The error that :meth:`ReplicatorError.to_dict` described, e.g. in another process.

    A ``kind`` that is not defined here becomes a plain :class:`ReplicatorError`. Values of another
    type than an error has are left out.
    """
    kind = globals().get(_text(document.get("kind")))
    if not (isinstance(kind, type) and issubclass(kind, ReplicatorError)):
        kind = ReplicatorError
    values = {name: document[name] for name in kind.value_names() if name in document}
    pairs = {name: _pair(value) for name, value in values.items() if isinstance(value, list)}
    plain = {name: value for name, value in values.items() if isinstance(value, str | int)}
    message, hint, code = (_text(document.get(name)) for name in ("error", "hint", "code"))
    return kind(message, hint=hint, code=code, **plain | pairs)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _pair(value: list[object]) -> tuple[object, ...] | None:
    return tuple(value) if all(isinstance(each, int) for each in value) else None


@dataclass(kw_only=True, eq=False, repr=False)
class ConfigError(ReplicatorError):
    """``setting`` is the name of the setting or argument that cannot work."""

    exit_code = 2
    code = "config"
    setting: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class BucketMissing(ConfigError):
    default_hint = "create the bucket, or correct --bucket / --endpoint-url"
    code = "bucket_missing"
    bucket: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class DatabaseUnusable(ConfigError):
    """``path`` is the database that cannot be replicated as it is."""

    code = "database_unusable"
    path: Any = ""


@dataclass(kw_only=True, eq=False, repr=False)
class DatabaseMissing(DatabaseUnusable):
    """Nothing is at ``path``, or an empty file. Nothing that was captured before is lost."""

    default_hint = "correct the path, restore the database, or let the application create it"
    code = "database_missing"


@dataclass(kw_only=True, eq=False, repr=False)
class Unreadable(ReplicatorError):
    """An object cannot be read here; a reader looks for a way around it. ``key`` names it."""

    code = "unreadable"
    key: str = ""


class DamageError(Unreadable):
    """Stored bytes are not the bytes that were written."""

    exit_code = 3
    default_hint = "restore with --allow-older to get the newest state that can be proved"
    code = "damage"


class NewerFormat(Unreadable):
    """A newer version of the program wrote the object. Nothing shows that it is damaged, but it
    cannot be restored here."""

    default_hint = "upgrade this replicator, then try again"
    code = "newer_format"


@dataclass(kw_only=True, eq=False, repr=False)
class CheckFailed(ReplicatorError):
    """``statement`` is the SQL that gave something else than one true value."""

    exit_code = 3
    code = "check_failed"
    statement: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class Inconclusive(ReplicatorError):
    """A check cannot be made here, which says nothing about the data. ``statement`` is its SQL."""

    exit_code = 10
    code = "inconclusive"
    statement: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class GapError(ReplicatorError):
    """Transactions ``first_missing`` to ``last_missing`` are not in the archive.

    ``restorable`` holds the first and last txid of the range that can be restored.
    """

    exit_code = 4
    code = "gap"
    first_missing: int | None = None
    last_missing: int | None = None
    restorable: tuple[int, int] | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class StoreUnavailable(ReplicatorError):
    """``operation`` is the request that failed, e.g. ``get``; ``key`` its object."""

    exit_code = 5
    default_hint = "check the network and the endpoint, then try again"
    code = "store_unavailable"
    operation: str = ""
    key: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class NotDurable(ReplicatorError):
    """Transaction ``txid`` is not durable; ``durable_txid`` is the newest one that is."""

    exit_code = 5
    code = "not_durable"
    txid: int | None = None
    durable_txid: int | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class CacheFull(NotDurable):
    """``pending_bytes`` wait for the upload and may not exceed ``limit_bytes``.

    The capture allows the WAL to reset, and catches up from the database later.
    """

    code = "cache_full"
    pending_bytes: int | None = None
    limit_bytes: int | None = None


class RefusedError(ReplicatorError):
    exit_code = 6
    code = "refused"


@dataclass(kw_only=True, eq=False, repr=False)
class AccessDenied(RefusedError):
    """``operation`` is the request that the store refused; ``key`` its object."""

    default_hint = "check the access key, the secret and the policy of the bucket"
    code = "access_denied"
    operation: str = ""
    key: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class Fenced(RefusedError):
    """``holder`` describes the writer that owns the archive at ``url``; it wrote ``txid``."""

    code = "fenced"
    holder: str = ""
    url: str = ""
    txid: int | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class StoreUnsafe(RefusedError):
    """``url`` is the store that breaks a guarantee the archive depends on."""

    code = "store_unsafe"
    url: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class LocalIOError(ReplicatorError):
    """``path`` is the file or directory, ``errno`` the number the system gave."""

    exit_code = 7
    code = "local_io"
    path: Any = ""
    errno: int | None = None


class DiskFull(LocalIOError):
    default_hint = "free some space; nothing was lost"
    code = "disk_full"


class TargetExists(LocalIOError):
    code = "target_exists"


@dataclass(kw_only=True, eq=False, repr=False)
class UnsafePath(LocalIOError):
    """Another user could lead this process to other files through ``path``; ``owner`` is the
    number of the user that owns it."""

    code = "unsafe_path"
    owner: int | None = None


class LedgerDamaged(LocalIOError):
    default_hint = "a damaged ledger is set aside, and the cache starts empty"
    code = "ledger_damaged"


@dataclass(kw_only=True, eq=False, repr=False)
class LedgerTooNew(LocalIOError):
    """The ledger at ``path`` has format ``found``; this version knows formats up to ``known``."""

    default_hint = "start the newer version again; the ledger was not changed"
    code = "ledger_too_new"
    found: int | None = None
    known: int | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class AlreadyRunning(ReplicatorError):
    """Process ``pid`` holds the lock at ``path``. ``decided``: it has decided its start, so it
    restores nothing any longer."""

    exit_code = 8
    code = "already_running"
    pid: int | None = None
    path: Any = ""
    decided: bool | None = None


class CacheInUse(AlreadyRunning):
    """The process uses the cache directory ``path`` for another database."""

    default_hint = "give each database a cache directory of its own"
    code = "cache_in_use"


@dataclass(kw_only=True, eq=False, repr=False)
class NoBackup(ReplicatorError):
    """``url`` is the address without a backup."""

    exit_code = 9
    code = "no_backup"
    url: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class NotRunning(ReplicatorError):
    """No sidecar answers in the cache directory ``path``."""

    default_hint = "start one with `replicator run`"
    code = "not_running"
    path: Any = ""


class Cancelled(ReplicatorError):
    """The operation ended early because its caller stops."""

    code = "cancelled"


class ContinuityLost(ReplicatorError):
    """The WAL no longer holds the frames that follow the captured position."""

    code = "continuity_lost"


class ChangedOutside(ContinuityLost):
    """The database file differs from the state its WAL produced: another program wrote to it."""

    code = "changed_outside"


@dataclass(kw_only=True, eq=False, repr=False)
class DatabaseReplaced(ReplicatorError):
    """The file at ``path`` is not the one that was opened (replaced, deleted, recreated)."""

    code = "database_replaced"
    path: Any = ""


@dataclass(kw_only=True, eq=False, repr=False)
class DatabaseBusy(ReplicatorError):
    """Another process, or another thread, holds what the work needs of the database ``path``."""

    code = "database_busy"
    path: Any = ""


@dataclass(kw_only=True, eq=False, repr=False)
class QueueFull(ReplicatorError):
    """A queue of writes had no room for this one, which was not written. ``capacity`` counts
    writes that wait."""

    default_hint = "write less at once, or raise the capacity of the queue"
    code = "queue_full"
    capacity: int | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class MigrationError(ReplicatorError):
    """``version`` is that of the migration. Nothing of it is in the database."""

    code = "migration"
    version: str = ""


@dataclass(kw_only=True, eq=False, repr=False)
class StoreAnswer(ReplicatorError):
    """The store's answer is an outcome, and the caller decides. ``key`` names the object."""

    code = "store_answer"
    key: str = ""


class ObjectExists(StoreAnswer):
    code = "object_exists"


class ObjectMissing(StoreAnswer):
    code = "object_missing"


class UploadMissing(StoreAnswer):
    code = "upload_missing"


class CopyRefused(StoreAnswer):
    code = "copy_refused"
