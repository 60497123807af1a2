"""Objects of each format, kept for ever: today's code reads them as they were meant."""

import hashlib
import json
from pathlib import Path

import pytest

from replicator.format.object_header import parse_metadata
from replicator.format.page_hashes import PageHashes
from replicator.format.segment import decode_segment
from replicator.format.snapshot_blocks import decode_snapshot
from replicator.model import Kind
from tests.helpers.oracle_wal import sqlite_image

FIXTURES = Path(__file__).parents[2] / "fixtures" / "format-v1"
NEWER = Path(__file__).parents[2] / "fixtures" / "format-v2"
FACTS = json.loads((FIXTURES / "facts.json").read_text())


def decoded(name):
    data = (FIXTURES / f"{name}.zst").read_bytes()
    return (decode_snapshot if name == "snapshot" else decode_segment)(data, name)


@pytest.mark.parametrize("kind", Kind)
def test_an_object_of_each_kind_reads_as_it_was_written(kind):
    """Header, trailer, index, payload and metadata, all of it."""
    name = kind.name.lower().replace("_", "-")
    facts = FACTS[name]
    summary, payload = decoded(name)
    metadata = {key: value for key, value in facts.items() if key in summary.metadata()}
    assert summary.metadata() == metadata
    assert parse_metadata(metadata).kind is summary.header.kind is kind
    assert list(summary.trailer.commit_frames) == facts["commit-frames"]
    assert list(summary.trailer.commit_times_ms) == facts["commit-times"]
    assert summary.header.created_by == facts["created-by"]
    assert len(payload) == summary.trailer.payload_bytes == facts["payload-bytes"]
    assert hashlib.sha256(payload).hexdigest() == facts["payload-sha256"]


@pytest.mark.parametrize("name", ["segment", "merge", "merge-newest", "catch-up"])
def test_they_restore_to_the_same_database(tmp_path, name):
    """The snapshot and any one of the four give the same bytes, with the checksum promised."""
    _, base = decoded("snapshot")
    summary, log = decoded(name)
    restored = sqlite_image(tmp_path, base, log)
    assert hashlib.sha256(restored).hexdigest() == FACTS["restored-sha256"]
    hashes = PageHashes(summary.header.page_size)
    hashes.extend(1, restored)
    assert hashes.checksum == summary.trailer.checksum_after
    assert hashes.pages == summary.trailer.pages


def test_a_snapshot_of_format_2_reads_as_it_was_written():
    """The same database as that of format 1, with the digests of its blocks."""
    facts = json.loads((NEWER / "facts.json").read_text())
    data = (NEWER / "snapshot.zst").read_bytes()
    summary, payload = decode_snapshot(data, "snapshot")
    assert payload == decoded("snapshot")[1]
    assert summary.metadata() == facts["metadata"] | {"sha256": hashlib.sha256(data).hexdigest()}
    assert parse_metadata(facts["metadata"]).sha256 == ""
    blocks = summary.trailer.blocks
    assert blocks.sent_ms == facts["sent-ms"]
    assert [blocks.block(n).hex() for n in range(len(blocks))] == facts["frames"]
    assert [blocks.pages(n).hex() for n in range(len(blocks))] == facts["pages"]
