"""Several runs of transactions as one: the newest image of each page, and no other.

Owns: the rule which images are left, and a WAL file that says the same as all of them together.
Two passes over the frames, memory for 8 bytes a page that changed and one chunk of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from replicator.format.buffers import U32
from replicator.format.database import lock_page
from replicator.format.payload import Chunk
from replicator.format.placement import Placement
from replicator.format.wal import FRAME_HEADER_SIZE, FrameBuilder

ZEROS_BYTES = 4 * 1024 * 1024  # pages of zeros that are written at once


def newest_images(
    chunks: Callable[[], Iterator[Chunk]], *, page_size: int, salts: tuple[int, int]
) -> Iterator[bytes]:
    """A WAL file of one transaction that leads to where all of ``chunks`` lead.

    ``chunks()`` gives every frame of the runs, oldest first, and is called twice; the last
    frame must end a transaction. Pages that were cut off and came back without an image are
    written as zeros, for zeros is what they are whatever the base holds there.
    """
    placement = Placement()
    total = 0
    for _, frames in chunks():
        placement.add(frames, frames.count, total)
        total += frames.count
    if placement.size is None or not placement.last:
        raise ValueError("there is no image to write")
    builder = FrameBuilder(page_size, salts=salts)
    yield builder.header
    yield from _zeros(builder, placement.grown(), page_size)
    at = 0
    for data, frames in chunks():
        chosen = placement.chosen(at, frames.count)
        commit = placement.size if at < placement.last <= at + frames.count else 0
        at += frames.count
        rows = np.frombuffer(data, np.uint8).reshape(frames.count, -1)
        images = rows[chosen, FRAME_HEADER_SIZE:].tobytes()
        yield builder.feed(frames.pages[chosen], images, commit=commit)


def _zeros(builder: FrameBuilder, pgnos: U32, page_size: int) -> Iterator[bytes]:
    pgnos = pgnos[pgnos != lock_page(page_size)]
    step = max(1, ZEROS_BYTES // page_size)
    for at in range(0, len(pgnos), step):
        some = pgnos[at : at + step]
        yield builder.feed(some, bytes(len(some) * page_size))
