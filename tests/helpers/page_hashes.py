"""Page hashes by their definition, and whole changes of them in one call."""

from __future__ import annotations

import numpy as np
from xxhash import xxh3_64_intdigest

from replicator.format.buffers import U32, Buffer
from replicator.format.page_hashes import HashChange, PageHashes, page_hashes
from replicator.format.wal import Frames


def page_hash(pgno: int, page: Buffer) -> int:
    """XXH3 of the page, seeded with its number."""
    return xxh3_64_intdigest(page, seed=pgno)


def apply_frames(hashes: PageHashes, frames: Frames, count: int, data: Buffer) -> None:
    """Apply the first ``count`` frames of ``data``, the last of which commits."""
    change = HashChange(hashes)
    change.add(frames, count, data)
    change.apply()


def set_pages(hashes: PageHashes, pgnos: U32, data: Buffer, *, pages: int) -> None:
    """Give the pages ``pgnos`` the images in ``data``, and the database its new size."""
    size = hashes.page_size
    hashes.resize(min(hashes.pages, pages))
    hashes.grow(pages, pgnos)
    images = [data[at : at + size] for at in range(0, len(data), size)]
    found = [
        page_hashes(size, pgno, image) for pgno, image in zip(pgnos.tolist(), images, strict=True)
    ]
    hashes.put(pgnos, np.concatenate([np.zeros(0, np.uint64), *found]))
