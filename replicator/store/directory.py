"""The store in a directory (``file://``): a key is a path, an object is a plain file.

Owns the tree below its root. An object appears completely or not at all: draft, fsync, link to the
final name (which fails if the name is taken, so exactly one writer wins), fsync of the directory.
Metadata, drafts and unfinished uploads are under ``.replicator/`` in the root. Metadata is written
directly after its object, so a crash between the two leaves an object without metadata, never one
with another object's metadata. Refuses symbolic links, and keys outside the root.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from typing import IO

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    ConfigError,
    ObjectExists,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
    UploadMissing,
)
from replicator.format.bounded_json import DEFAULT_JSON_LIMITS, parse_json, text_fields
from replicator.format.limits import DEFAULT_FORMAT_LIMITS
from replicator.store.address import StoreAddress
from replicator.store.base import (
    Folders,
    Metadata,
    ObjectInfo,
    Part,
    Parts,
    Store,
    StoreRequest,
    Upload,
    Uploads,
)
from replicator.store.drafts import DraftDirectory, sync_directory

HIDDEN = ".replicator"
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_SUCH_NAME = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class DirectoryStore(Store):
    """Objects as files below ``path``, which must exist: an unmounted disk must not look like an
    empty store."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = os.path.realpath(path)
        self.url = f"file://{self._root}"
        self._hidden = os.path.join(self._root, HIDDEN)
        self._drafts = DraftDirectory(self._root, os.path.join(self._hidden, "drafts"))

    # ------------------------------------------------------------------ paths

    def _path(self, key: str) -> str:
        """The path of an object; ``ConfigError`` for a key outside the root."""
        if not _is_plain(key):
            raise ConfigError(f"the key {key!r} cannot be a file name")
        return self._below(key)

    def _below(self, name: str) -> str:
        """A path below the root. ``AccessDenied`` if a symbolic link is part of it: it would lead
        out of the root, and a listing ignores it."""
        path = self._root
        for part in name.split("/"):
            path = os.path.join(path, part)
            if os.path.islink(path):
                raise AccessDenied(
                    f"{path} is a symbolic link, which no object of this store is",
                    key=name,
                    code="link_in_store",
                    hint="move it away; an attacker with write access may have made it",
                )
        return path

    def _sidecar(self, key: str) -> str:
        return self._below(f"{HIDDEN}/metadata/{key}.json")

    def _upload(self, upload_id: str) -> str:
        return self._below(f"{HIDDEN}/uploads/{os.path.basename(upload_id) or 'none'}")

    @contextlib.contextmanager
    def _translating(
        self, operation: str, key: str, missing: type[ReplicatorError]
    ) -> Iterator[None]:
        """Turn an ``OSError`` into an error of the contract; ``missing`` for a missing file."""
        try:
            yield
        except OSError as error:
            request = StoreRequest(operation, key, self._root)
            if not os.path.isdir(self._root):
                raise request.error(
                    BucketMissing,
                    f"{self._root} is not a directory",
                    hint="create the directory, or mount its disk",
                ) from error
            raise _translated(error, request, missing) from error

    # ------------------------------------------------------------------ objects

    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        self._create(key, lambda file: file.write(body), dict(metadata or {}), if_absent)

    def _create(
        self,
        key: str,
        write: Callable[[IO[bytes]], object],
        metadata: dict[str, str],
        if_absent: bool,
    ) -> None:
        path = self._path(key)
        self._below(f"{HIDDEN}/drafts")
        with self._translating("put", key, StoreUnavailable):
            if if_absent and os.path.lexists(path):  # saves a write that would fail at its end
                raise ObjectExists(f"{key} exists", key=key)
            try:
                self._drafts.publish(path, write, if_absent=if_absent)
            except FileExistsError as error:
                raise ObjectExists(f"{key} exists", key=key) from error
            sidecar = json.dumps(metadata).encode()
            self._drafts.publish(
                self._sidecar(key), lambda file: file.write(sidecar), if_absent=False
            )

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._translating("get", key, ObjectMissing), open(self._path(key), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = start if start >= 0 else max(0, size + start)
            last = size if length is None else min(first + length, size)
            file.seek(first)
            data = file.read(max(0, last - first))
        if len(data) < last - first:
            raise StoreRequest("get", key).error(
                StoreUnavailable, "the file ended early", code="incomplete_answer"
            )
        return data

    def head(self, key: str) -> ObjectInfo:
        with self._translating("head", key, ObjectMissing):
            found = os.stat(self._path(key))
            if not stat.S_ISREG(found.st_mode):
                raise ObjectMissing(f"{key} does not exist", key=key)
            return _info(key, found, self._metadata(key), _etag(found))

    def _metadata(self, key: str) -> dict[str, str]:
        try:
            return text_fields(_read_json(self._sidecar(key)))
        except (FileNotFoundError, ValueError):
            return {}

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        with self._translating("list", prefix, BucketMissing):
            os.stat(self._root)
            base = prefix[: prefix.rfind("/") + 1]
            yield from self._walk(base, prefix, start_after)

    def _walk(self, base: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        """Objects below the directory ``base`` in key order. A directory sorts as its name with a
        slash, as in S3: "a-b" comes before "a/b"."""
        for key, entry in _entries(self._root, base):
            if entry.is_dir(follow_symlinks=False):
                passed = key < start_after and not start_after.startswith(key)
                if not passed and (key.startswith(prefix) or prefix.startswith(key)):
                    yield from self._walk(key, prefix, start_after)
            elif key.startswith(prefix) and key > start_after:
                with contextlib.suppress(FileNotFoundError):  # deleted after the listing
                    yield _info(key, entry.stat(follow_symlinks=False), {})

    def folders(self, prefix: str) -> Folders:
        with self._translating("list", prefix, BucketMissing):
            os.stat(self._root)
            return [
                key
                for key, _ in _entries(self._root, prefix)
                if key.endswith("/") and any(self._walk(key, key, ""))
            ]

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translating("delete", key, ObjectMissing):
            os.stat(self._root)
            for name in (self._sidecar(key), path):  # an object may lack metadata, not vice versa
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(name)
                    sync_directory(os.path.dirname(name))

    # ------------------------------------------------------------------ multipart uploads

    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        self._path(key)
        upload_id = uuid.uuid4().hex
        record = json.dumps({"key": key, "metadata": dict(metadata or {})}).encode()
        with self._translating("begin", key, StoreUnavailable):
            self._drafts.publish(
                os.path.join(self._upload(upload_id), "upload.json"),
                lambda file: file.write(record),
                if_absent=True,
            )
        return upload_id

    def _upload_metadata(self, key: str, upload_id: str) -> dict[str, str]:
        """The metadata given at the start; ``UploadMissing`` if ``key`` has no such upload."""
        with self._translating("upload of", key, UploadMissing):
            record = self._upload_record(upload_id)
        if record.key != key:
            raise UploadMissing(f"no upload {upload_id} of {key}", key=key)
        return dict(record.metadata)

    def _upload_record(self, upload_id: str) -> ObjectInfo:
        path = os.path.join(self._upload(upload_id), "upload.json")
        with contextlib.suppress(ValueError):
            match _read_json(path):
                case {"key": str(key), "metadata": metadata}:
                    return ObjectInfo(key, 0, 0, text_fields(metadata))
        raise FileNotFoundError(errno.ENOENT, "not the record of an upload", path)

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        self._upload_metadata(key, upload_id)
        part = Part(number, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest())
        path = self._part_path(upload_id, part)
        directory, name = os.path.split(path)
        with self._translating(f"put part {number} of", key, UploadMissing):
            same_number = [n for n in os.listdir(directory) if n.startswith(f"{number:05d}-")]
            self._drafts.publish(path, lambda file: file.write(body), if_absent=False)
            for older in same_number:
                if older != name:
                    os.unlink(os.path.join(directory, older))
        return part

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        if self.head(source.key).etag != source.etag:
            raise ObjectMissing(f"{source.key} was replaced", key=source.key)
        return self.put_part(key, upload_id, number, self.get(source.key, start, length))

    def _part_path(self, upload_id: str, part: Part) -> str:
        return os.path.join(self._upload(upload_id), f"{part.number:05d}-{part.etag}")

    def list_parts(self, key: str, upload_id: str) -> Parts:
        self._upload_metadata(key, upload_id)
        with (
            self._translating("parts of", key, UploadMissing),
            os.scandir(self._upload(upload_id)) as entries,
        ):
            found = [(entry.name.partition("-"), entry.stat().st_size) for entry in entries]
        return sorted(
            (Part(int(name[0]), size, name[2]) for name, size in found if name[1]),
            key=lambda part: part.number,
        )

    def complete_upload(
        self, key: str, upload_id: str, parts: Parts, *, if_absent: bool = True
    ) -> None:
        metadata = self._upload_metadata(key, upload_id)
        held = set(self.list_parts(key, upload_id))
        if any(part not in held for part in parts):
            raise UploadMissing(f"a part of upload {upload_id} of {key} is gone", key=key)

        def join(file: IO[bytes]) -> None:
            for part in parts:
                with open(self._part_path(upload_id, part), "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)

        self._create(key, join, metadata, if_absent)
        self.abort_upload(key, upload_id)

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._translating("abort", key, UploadMissing), contextlib.suppress(FileNotFoundError):
            os.stat(self._root)
            shutil.rmtree(self._upload(upload_id))

    def list_uploads(self, prefix: str) -> Uploads:
        with self._translating("uploads below", prefix, BucketMissing):
            os.stat(self._root)
            found = [*self._uploads()]
        return sorted((u for u in found if u.key.startswith(prefix)), key=lambda u: u.key)

    def _uploads(self) -> Iterator[Upload]:
        for name in _names(os.path.join(self._hidden, "uploads")):
            with contextlib.suppress(FileNotFoundError):  # ended after the listing
                yield Upload(self._upload_record(name).key, name)

    def close(self) -> None:
        """Nothing to close."""


def open_address(address: StoreAddress, pool: int) -> DirectoryStore:  # noqa: ARG001
    """The directory of a ``file://`` address; any number of threads may use it."""
    return DirectoryStore(address.path)


def _is_plain(key: str) -> bool:
    """True if the key is a path below the root and outside the hidden directory."""
    names = key.split("/")
    return "\0" not in key and names[0] != HIDDEN and not {"", ".", ".."}.intersection(names)


def _translated(
    error: OSError, request: StoreRequest, missing: type[ReplicatorError]
) -> ReplicatorError:
    reason = os.strerror(error.errno or 0)
    if error.errno == errno.ENOENT:
        return request.error(missing, reason)
    if error.errno in _NO_SUCH_NAME:
        return request.error(ConfigError if missing is StoreUnavailable else missing, reason)
    if error.errno in _DENIED:
        hint = "check the owner of the directory and its mount options"
        return request.error(AccessDenied, reason, hint=hint)
    return request.error(StoreUnavailable, reason, hint="check the disk that holds the directory")


def _read_json(path: str) -> object:
    """The small JSON document in a file; ``ValueError`` if it is none."""
    with open(path, "rb") as file:
        return parse_json(file.read(DEFAULT_JSON_LIMITS.size + 1))


def _info(key: str, found: os.stat_result, metadata: dict[str, str], etag: str = "") -> ObjectInfo:
    modified_ms = min(max(0, found.st_mtime_ns // 1_000_000), DEFAULT_FORMAT_LIMITS.last_ms)
    return ObjectInfo(key, found.st_size, modified_ms, metadata, etag)


def _etag(found: os.stat_result) -> str:
    """An object never changes; a new object of that name is another file."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def _entries(root: str, base: str) -> list[tuple[str, os.DirEntry[str]]]:
    """The files and directories directly in ``base``, in key order; directories end with "/".
    Ignores symbolic links."""
    found: list[tuple[str, os.DirEntry[str]]] = []
    if base and not _is_plain(base[:-1]):  # no key begins like that, but a path may
        return found
    parts = base.split("/")
    if any(os.path.islink(os.path.join(root, *parts[:n])) for n in range(1, len(parts))):
        return found
    try:
        with os.scandir(os.path.join(root, base)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append((f"{base}{entry.name}/", entry))
                elif entry.is_file(follow_symlinks=False):
                    found.append((base + entry.name, entry))
    except (FileNotFoundError, NotADirectoryError):
        return found
    return sorted((item for item in found if item[0] != f"{HIDDEN}/"), key=lambda item: item[0])


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
