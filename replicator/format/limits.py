"""The most that a reader of untrusted bytes allocates or loops over, each with its reason.

Owns: :class:`FormatLimits`. Everything else that a reader allocates is bounded by the length of
the object itself. A writer stays far below each of these.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatLimits:
    """Sizes are bytes."""

    # A longer tail is damage: it would describe 3.5 TiB of database.
    tail: int = 256 << 20
    blocks: int = 1 << 22  # of a snapshot: 4 TiB of database

    # Each frame holds 8 bytes of checksum, which do not compress: 8.1 bytes a frame were the
    # fewest, for frames of one unchanged page. So half of that is the fewest to be believed.
    bytes_a_frame: int = 4
    few_transactions: int = 1 << 16  # an object of any length may list these
    transactions: int = 1 << 23  # of one object; the largest merges hold a fourth of it

    few_tail: int = 1 << 20  # bytes of the trailer of a WAL object of any length

    # The smallest zstd frame with content and a checksum.
    smallest_block: int = 12

    last_txid: int = (1 << 63) - 1  # SQLite, which keeps the ledger, knows no larger integer
    pages: int = (1 << 32) - 1  # of a database
    last_ms: int = 253_402_300_799_999  # the end of the year 9999, the last that has a text


DEFAULT_FORMAT_LIMITS = FormatLimits()
