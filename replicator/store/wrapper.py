"""A store around a store, whose subclasses observe or change every call in one method.

Owns the delegation. Refuses to decide anything.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import TypeVar

from replicator.format.integrity import Integrity
from replicator.store.base import Folders, Metadata, ObjectInfo, Part, Parts, Store, Uploads

T = TypeVar("T")


class StoreWrapper(Store):
    """Passes every call to :meth:`around`, with its name and its key (or prefix)."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.inner = store

    @property
    def integrity(self) -> Integrity | None:
        return self.inner.integrity

    @property
    def keeps_versions(self) -> bool:
        return self.inner.keeps_versions

    @abc.abstractmethod
    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        """``proceed`` makes the call. Returns its result, or something else."""

    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        self.around(
            "put", key, lambda: self.inner.put(key, body, metadata=metadata, if_absent=if_absent)
        )

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self.around("get", key, lambda: self.inner.get(key, start, length))

    def head(self, key: str) -> ObjectInfo:
        return self.around("head", key, lambda: self.inner.head(key))

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        yield from self.around(
            "list", prefix, lambda: self.inner.list(prefix, start_after=start_after)
        )

    def folders(self, prefix: str) -> Folders:
        return self.around("folders", prefix, lambda: self.inner.folders(prefix))

    def delete(self, key: str) -> None:
        self.around("delete", key, lambda: self.inner.delete(key))

    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        return self.around(
            "begin_upload", key, lambda: self.inner.begin_upload(key, metadata=metadata)
        )

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        return self.around(
            "put_part", key, lambda: self.inner.put_part(key, upload_id, number, body)
        )

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        return self.around(
            "copy_part",
            key,
            lambda: self.inner.copy_part(key, upload_id, number, source, start, length),
        )

    def list_parts(self, key: str, upload_id: str) -> Parts:
        return self.around("list_parts", key, lambda: self.inner.list_parts(key, upload_id))

    def complete_upload(
        self, key: str, upload_id: str, parts: Parts, *, if_absent: bool = True
    ) -> None:
        self.around(
            "complete_upload",
            key,
            lambda: self.inner.complete_upload(key, upload_id, parts, if_absent=if_absent),
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.around("abort_upload", key, lambda: self.inner.abort_upload(key, upload_id))

    def list_uploads(self, prefix: str) -> Uploads:
        return self.around("list_uploads", prefix, lambda: self.inner.list_uploads(prefix))

    def close(self) -> None:
        self.inner.close()
