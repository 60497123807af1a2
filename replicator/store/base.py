"""The contract of a store: a flat map of immutable objects, each created at most once.

Every implementation raises only classes of :mod:`replicator.errors`:
``ObjectMissing``, ``ObjectExists``, ``UploadMissing`` and ``CopyRefused`` as answers,
``AccessDenied`` and ``BucketMissing`` as permanent refusals, ``StoreUnavailable`` for any failure
that may pass. Never reports a failure as a missing object.

Implementations are safe to share between threads and do not retry; see :mod:`.retry`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from replicator.errors import ReplicatorError
from replicator.format.integrity import Integrity

Metadata: TypeAlias = Mapping[str, str]
ErrorT = TypeVar("ErrorT", bound=ReplicatorError)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its full key, size in bytes, and modification time (ms since the epoch)."""

    key: str
    size: int
    modified_ms: int
    metadata: Metadata = field(default_factory=dict)  # this and the next field: only from head()
    etag: str = ""  # the store's own token for this content


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part of a multipart upload. ``etag`` is the store's own token for it: the MD5 of
    its bytes as hex, perhaps in quotes, except for S3 with the user's own encryption keys."""

    number: int  # 1 … 10 000
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Upload:
    """One multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """One request, for the message and the values of its error."""

    operation: str
    key: str = ""  # or a prefix
    bucket: str = ""

    def __str__(self) -> str:
        return f"{self.operation} {self.key}".rstrip()

    def error(self, kind: type[ErrorT], message: str, *, hint: str = "", code: str = "") -> ErrorT:
        """An error of the class ``kind`` with the values of this request that the class has."""
        known = {
            name: getattr(self, name) for name in kind.value_names() if name in _REQUEST_VALUES
        }
        return kind(f"{self}: {message}", hint=hint, code=code, **known)


_REQUEST_VALUES = ("operation", "key", "bucket")

# ``Store.list`` hides the built-in of that name inside the class.
Folders = list[str]
Parts = list[Part]
Uploads = list[Upload]


class Store(abc.ABC):
    """Objects by key. ``url`` names the store for people, without credentials."""

    url: str

    @property
    def integrity(self) -> Integrity | None:
        """The keys that seal the objects of this store, if there are any; readers refuse objects
        that none of them has sealed."""
        return None

    @property
    def keeps_versions(self) -> bool:
        """True if a deletion is known to have kept the old version, which still costs money."""
        return False

    @abc.abstractmethod
    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        """Create the object in one request; ``ObjectExists`` if ``if_absent`` and it exists."""

    @abc.abstractmethod
    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes ``start … start+length`` (to the end if ``length`` is None; shorter only at the
        object's end). A negative ``start`` counts from the end. Never returns fewer bytes than
        the answer declared."""

    @abc.abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Size, time and metadata of one object."""

    @abc.abstractmethod
    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix``, in key order, keys > ``start_after``,
        fetched page by page as they are consumed."""

    @abc.abstractmethod
    def folders(self, prefix: str) -> Folders:
        """The next path components below ``prefix`` (which is empty or ends with "/"), each as a
        full prefix that ends with "/". Objects directly below ``prefix`` are left out."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove one object; a missing one is not an error."""

    @abc.abstractmethod
    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        """Begin a multipart upload. Returns its id."""

    @abc.abstractmethod
    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        """Store one part (at least 5 MiB, except for the last)."""

    @abc.abstractmethod
    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        """Store ``length`` bytes from ``start`` of another object as one part, inside the store.

        ``source`` comes from :meth:`head`. ``ObjectMissing`` if that object is gone or was
        replaced, ``CopyRefused`` if the store cannot copy parts. The ETag of the part need not be
        an MD5, and only :meth:`list_parts` proves its size.
        """

    @abc.abstractmethod
    def list_parts(self, key: str, upload_id: str) -> Parts:
        """Every part the store confirms, by number, all pages read."""

    @abc.abstractmethod
    def complete_upload(
        self, key: str, upload_id: str, parts: Parts, *, if_absent: bool = True
    ) -> None:
        """Publish the object from its parts; ``ObjectExists`` as in :meth:`put`."""

    @abc.abstractmethod
    def abort_upload(self, key: str, upload_id: str) -> None:
        """Discard the parts; a missing upload is not an error."""

    @abc.abstractmethod
    def list_uploads(self, prefix: str) -> Uploads:
        """Unfinished multipart uploads below ``prefix``."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connections. The store cannot be used afterwards."""
