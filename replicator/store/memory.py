"""A store in memory: the contract in its shortest form, for tests and for readers.

Owns the objects of one process. Refuses to keep anything after its end.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from replicator.errors import ObjectExists, ObjectMissing, UploadMissing
from replicator.store.base import Folders, Metadata, ObjectInfo, Part, Parts, Store, Upload, Uploads
from replicator.system import clock


@dataclass(frozen=True, slots=True)
class _Object:
    body: bytes
    info: ObjectInfo


@dataclass(slots=True)
class _Upload:
    key: str
    metadata: dict[str, str]
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class MemoryStore(Store):
    """Keeps every object in a dictionary; one lock makes each call atomic."""

    url = "memory://"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _Upload] = {}

    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        with self._lock:
            if if_absent and key in self._objects:
                raise ObjectExists(f"{key} exists", key=key)
            info = ObjectInfo(
                key, len(body), clock.now_ms(), dict(metadata or {}), uuid.uuid4().hex
            )
            self._objects[key] = _Object(bytes(body), info)

    def _find(self, key: str) -> _Object:
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise ObjectMissing(f"{key} does not exist", key=key)
        return found

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        body = self._find(key).body
        first = start if start >= 0 else max(0, len(body) + start)
        return body[first:] if length is None else body[first : first + length]

    def head(self, key: str) -> ObjectInfo:
        return self._find(key).info

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        with self._lock:
            keys = sorted(k for k in self._objects if k.startswith(prefix) and k > start_after)
            found = [self._objects[key].info for key in keys]
        for info in found:
            yield ObjectInfo(info.key, info.size, info.modified_ms)

    def folders(self, prefix: str) -> Folders:
        with self._lock:
            rests = [k[len(prefix) :] for k in self._objects if k.startswith(prefix)]
        return sorted({prefix + rest.split("/")[0] + "/" for rest in rests if "/" in rest})

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        upload_id = uuid.uuid4().hex
        with self._lock:
            self._uploads[upload_id] = _Upload(key, dict(metadata or {}))
        return upload_id

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadMissing(f"no upload {upload_id} of {key}", key=key)
        return upload

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        part = Part(number, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest())
        with self._lock:
            self._upload(key, upload_id).parts[number] = (part, bytes(body))
        return part

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        with self._lock:
            found = self._find(source.key)
            if found.info != source:
                raise ObjectMissing(f"{source.key} was replaced", key=source.key)
            return self.put_part(key, upload_id, number, found.body[start : start + length])

    def list_parts(self, key: str, upload_id: str) -> Parts:
        with self._lock:
            parts = self._upload(key, upload_id).parts
            return [parts[number][0] for number in sorted(parts)]

    def complete_upload(
        self, key: str, upload_id: str, parts: Parts, *, if_absent: bool = True
    ) -> None:
        with self._lock:
            upload = self._upload(key, upload_id)
            if any(upload.parts.get(part.number, (None,))[0] != part for part in parts):
                raise UploadMissing(f"a part of upload {upload_id} of {key} is gone", key=key)
            body = b"".join(upload.parts[part.number][1] for part in parts)
            self.put(key, body, metadata=upload.metadata, if_absent=if_absent)
            del self._uploads[upload_id]

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._lock:
            self._uploads.pop(upload_id, None)

    def list_uploads(self, prefix: str) -> Uploads:
        with self._lock:
            found = [Upload(upload.key, upload_id) for upload_id, upload in self._uploads.items()]
        return sorted((u for u in found if u.key.startswith(prefix)), key=lambda u: u.key)

    def close(self) -> None:
        """Nothing to close."""
