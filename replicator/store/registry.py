"""The one door to the bucket: :func:`open_store` turns a target into a store.

Implementations are imported only when they are asked for; boto3 costs a tenth of a second.
"""

from __future__ import annotations

from replicator.store.base import Store, StoreTarget


def open_store(target: StoreTarget, *, pool: int = 16) -> Store:
    """The store behind ``target``. Nothing is asked of it yet, so it need not be reachable.
    ``pool`` is the number of threads that may speak to it at once."""
    if target.scheme == "file":
        from replicator.store.directory import DirectoryStore

        return DirectoryStore(target.path)
    from replicator.store.s3 import S3Store

    return S3Store(
        target.bucket,
        endpoint_url=target.endpoint_url,
        region=target.region,
        profile=target.profile,
        checksums=target.checksums,
        pool=pool,
    )
