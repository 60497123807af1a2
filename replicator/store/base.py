"""The store as the project sees it: a flat map of immutable objects, created at most once.

Every implementation raises only classes of :mod:`replicator.errors`:
``ObjectMissing``, ``ObjectExists``, ``UploadMissing`` and ``CopyRefused`` as answers,
``AccessDenied`` and ``BucketMissing`` as permanent refusals, ``StoreUnavailable`` for anything
that may pass. A failure is never reported as a missing object.

Implementations are safe to share between threads and do not retry; see :mod:`.retry`.

:class:`StoreTarget` says which store, and never holds or shows credentials.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from replicator.errors import ConfigError

Metadata = Mapping[str, str]
Checksums = Literal["when_required", "when_supported"]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its full key, size in bytes, and modification time (ms since the epoch)."""

    key: str
    size: int
    modified_ms: int
    metadata: Metadata = field(default_factory=dict)  # this and the next: filled by head() only
    etag: str = ""  # the store's own token for this content


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part of a multipart upload. ``etag`` is the store's own token for it: the MD5 of
    its bytes as hex, perhaps in quotes, but for S3 with encryption by keys of the user."""

    number: int  # 1 … 10 000
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Upload:
    """One multipart upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str


# ``Store.list`` hides the built-in of that name inside the class.
Folders = list[str]
Parts = list[Part]
Uploads = list[Upload]


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """Which store, and where in it: everything :func:`.open_store` needs but credentials.

    ``s3://bucket/prefix`` names a bucket and a prefix. ``file:///dir`` names a directory that
    plays the part of the bucket; its prefix is given beside it.
    """

    scheme: Literal["s3", "file"]
    bucket: str = ""
    path: str = ""  # absolute directory, "file" only
    prefix: str = ""  # without slashes at the ends
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    checksums: Checksums = "when_required"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", self.prefix.strip("/"))
        place = self.bucket if self.scheme == "s3" else self.path
        if not place:
            raise ConfigError("no bucket is named", hint="write s3://bucket/prefix or file:///dir")
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url)

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        checksums: Checksums = "when_required",
    ) -> StoreTarget:
        """The target a URL names; ``ConfigError`` for anything else. ``prefix`` is used when
        the URL itself has none."""
        scheme, colon, rest = url.partition("://")
        if colon and scheme == "file":
            return cls("file", path=_file_path(rest), prefix=prefix)
        if not colon or scheme != "s3":
            raise ConfigError(
                "the address is neither s3://… nor file://…",
                hint="write s3://bucket/prefix or file:///dir",
            )
        bucket, _, own = rest.partition("/")
        _refuse_credentials(bucket)
        return cls(
            "s3",
            bucket=bucket,
            prefix=own.strip("/") or prefix,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            checksums=checksums,
        )

    @property
    def url(self) -> str:
        """The target for people; free of credentials."""
        if self.scheme == "s3":
            return "/".join(filter(None, ("s3:/", self.bucket, self.prefix)))
        return "/".join(filter(None, ("file://" + quote(self.path.rstrip("/")), self.prefix)))


def _refuse_credentials(authority: str) -> None:
    if "@" in authority:
        raise ConfigError(
            "an address must not hold credentials",
            hint="use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
        )


def _check_endpoint(endpoint_url: str) -> None:
    parts = urlsplit(endpoint_url)
    _refuse_credentials(parts.netloc)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            "the endpoint is not an http:// or https:// address",
            hint="write --endpoint-url https://host:port",
        )


def _file_path(rest: str) -> str:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise ConfigError(
            "a file:// address must name an absolute directory",
            hint="write file:///dir, with three slashes",
        )
    return "/" + unquote(path).strip("/")


class Store(abc.ABC):
    """Objects by key. ``url`` names the store for people, without credentials."""

    url: str

    @property
    def keeps_versions(self) -> bool:
        """Whether a deletion was seen to leave the old version behind, which still costs."""
        return False

    @abc.abstractmethod
    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        """Create the object in one request; ``ObjectExists`` if ``if_absent`` and it exists."""

    @abc.abstractmethod
    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes ``start … start+length`` (to the end when ``length`` is None; shorter only
        at the object's end). A negative ``start`` counts from the end. Never returns fewer
        bytes than the answer announced."""

    @abc.abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Size, time and metadata of one object."""

    @abc.abstractmethod
    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix``, in key order, keys > ``start_after``,
        fetched page by page as they are consumed."""

    @abc.abstractmethod
    def folders(self, prefix: str) -> Folders:
        """The next path components below ``prefix`` (which is empty or ends with "/"),
        each as a full prefix that ends with "/". Direct objects are left out."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove one object; a missing one is not an error."""

    @abc.abstractmethod
    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        """Begin a multipart upload and return its id."""

    @abc.abstractmethod
    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        """Store one part (≥ 5 MiB but for the last)."""

    @abc.abstractmethod
    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        """Store ``length`` bytes from ``start`` of another object as one part, inside the store.

        ``source`` is what :meth:`head` told; ``ObjectMissing`` when that object is gone or is
        another one now. ``CopyRefused`` by a store that cannot do it at all. The ETag of the
        part need not be an MD5, and only :meth:`list_parts` proves its size.
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
        """Give the parts up; a vanished upload is not an error."""

    @abc.abstractmethod
    def list_uploads(self, prefix: str) -> Uploads:
        """Unfinished multipart uploads below ``prefix``."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of connections. The store cannot be used afterwards."""
