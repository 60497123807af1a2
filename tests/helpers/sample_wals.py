"""Made-up runs of transactions, as log frames and as plain values, and what they lead to."""

import numpy as np
from hypothesis import strategies as st

from replicator.format.wal import FrameBuilder

PAGE = 512
TRANSACTIONS = st.lists(
    st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 12)),
    min_size=1,
    max_size=8,
)


def page(number):
    return number.to_bytes(4, "big") * (PAGE // 4)


def build(transactions, mark=1):
    """A log whose every image is different; and the same as (pgno, image, commit)."""
    builder = FrameBuilder(PAGE, salts=(1, 2))
    data, plain = b"", []
    for pgnos, size in transactions:
        images = [page(mark + len(plain) + n) for n in range(len(pgnos))]
        data += builder.feed(np.array(pgnos, np.uint32), b"".join(images), commit=size)
        plain += [(pgno, image, 0) for pgno, image in zip(pgnos, images, strict=True)]
        plain[-1] = (*plain[-1][:2], size)
    return data, plain


def replay(image, plain):
    pages = dict(enumerate(image, 1))
    for pgno, content, commit in plain:
        pages[pgno] = content
        if commit:
            pages = {n: content for n, content in pages.items() if n <= commit}
            size = commit
    return [pages.get(n, bytes(PAGE)) for n in range(1, size + 1)]
