"""Metadata of objects is only a hint: damaged, swapped or lost, it never changes a restore.

An older, consistent version of an object is not accepted for the newer one either.
"""

import random

import pytest

from replicator.archive.timespec import to_text
from replicator.errors import DamageError, GapError, ReplicatorError
from replicator.format.segment import decode_segment
from replicator.model import DatabaseState
from tests.helpers.bucket import commit_ms
from tests.plugins.scoreboard import effort

TRIES = effort(700, 30_000)


def spoilt(archive, key, rng):
    """The metadata of an object, damaged in one of many ways."""
    own = dict(archive.saved[key][1])
    other = archive.saved[rng.choice(list(archive.saved))][1]
    name = rng.choice(list(own))
    value = own[name].encode()
    bit = rng.randrange(8 * len(value))
    bad = bytearray(value)
    bad[bit // 8] ^= 1 << bit % 8
    return rng.choice(
        (
            own | {name: bad.decode("latin-1")},
            own | {name: bad.decode("latin-1")},
            own | {name: other.get(name, "")},
            own | {name: str(rng.randrange(14))},
            {field: text for field, text in own.items() if field != name},
            dict(other),
            dict.fromkeys(own, "rubbish"),
            {},
        )
    )


def wish(archive, rng):
    """A transaction, and a target by number or by time that selects it."""
    target = rng.choice(archive.targets)
    if target is None or rng.random() < 0.5:
        return target or archive.newest, {"target": target}
    return target, {"target": None, "timestamp": to_text(commit_ms(target))}


@pytest.mark.timeout(effort(100, 3600))
def test_damaged_metadata(archive, seed, scoreboard):
    """With damaged metadata of up to three objects, a restore to any target, by txid or by time,
    is exact, because the objects prove their own content."""
    rng = random.Random(seed)
    for _ in range(TRIES):
        keys = rng.sample(list(archive.saved), rng.randint(1, 3))
        metadata = {key: spoilt(archive, key, rng) for key in keys}
        for key in keys:
            archive.put(key, archive.saved[key][0], metadata[key])
        txid, options = wish(archive, rng)
        found = archive.outcome(**options)
        assert not isinstance(found, ReplicatorError), (metadata, options, found)
        assert found.txid == txid, (metadata, options)
        archive.mend(*keys)
    scoreboard(
        f"metadata damaged in a bucket of {archive.kind}",
        f"{TRIES} restores by txid or time, all exact, 0 refused",
    )


@pytest.mark.timeout(effort(100, 3600))
def test_flips_under_damaged_metadata(archive, seed, scoreboard):
    """With a flipped bit in one object and damaged metadata of others, a restore names the object
    or is exact."""
    rng = random.Random(seed)
    named = 0
    for _ in range(TRIES // 2):
        key, *others = rng.sample(list(archive.saved), 3)
        for other in others:
            archive.put(other, archive.saved[other][0], spoilt(archive, other, rng))
        body = bytearray(archive.saved[key][0])
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        archive.put(key, bytes(body), spoilt(archive, key, rng))
        txid, options = wish(archive, rng)
        found = archive.outcome(**options)
        if isinstance(found, ReplicatorError):
            assert isinstance(found, DamageError), (key, options, found)
            assert found.key == key, (key, options, found)
            named += 1
        else:
            assert found.txid == txid, (key, options)
        archive.mend(key, *others)
    scoreboard(
        f"a flip and damaged metadata in a bucket of {archive.kind}",
        f"{TRIES // 2} restores, {named} named the object, the others exact",
    )


def shortened(archive, key):
    """The segment with its first transaction only; None if it has only one."""
    summary, payload = decode_segment(archive.saved[key][0], key)
    header, trailer = summary.header, summary.trailer
    if len(trailer.commit_frames) < 2:
        return None
    frames = trailer.commit_frames[0]
    image = archive.built.images[header.first_txid]
    built = archive.built
    built.generation, own = header.generation, built.generation
    try:
        return built.encode(
            header.kind,
            header.first_txid,
            header.first_txid,
            payload[: 32 + frames * (512 + 24)],
            DatabaseState(len(image) // 512, archive.checksum(image)),
            trailer.checksum_before,
            trailer.commit_frames[:1],
            trailer.commit_times_ms[:1],
        )
    finally:
        built.generation = own


def test_older_segments(archive):
    """With a shorter, consistent version of a segment, the missing transactions are named, and all
    before them and after the next snapshot are restored."""
    tried = 0
    for step in archive.steps:
        older = shortened(archive, step.key)
        if older is None:
            continue
        body, summary = older
        for metadata in (summary.metadata(), archive.saved[step.key][1], {}):
            archive.put(step.key, body, metadata)
            for target in archive.targets:
                _check_shortened(archive, step, target)
        archive.mend(step.key)
        tried += 1
    assert tried >= 1


def _check_shortened(archive, step, target):
    best, merge = (
        archive.reach(target, {step.key}),
        "merged/" in step.key,
    )  # merge keys contain their end
    if best == step.first - 1 and not merge and target != best:
        best = step.first
    found = archive.outcome(target)
    last = step.last == archive.newest and not merge  # no other object refers to the lost ones
    if target == best or (target is None and (best == archive.newest or last)):
        assert getattr(found, "txid", found) == best, (step, target, found)
    else:
        assert isinstance(found, (GapError, DamageError)), (step, target, found)


def test_older_snapshots(archive):
    """A snapshot whose content is another state is never restored, with any metadata."""
    for key in [key for key in archive.saved if "snapshots/" in key]:
        txid = int(key.split("/")[-1][:16], 16)
        generation = key[-len(".sqlite.zst") - 36 : -len(".sqlite.zst")]
        for stale in sorted({1, txid - 1, txid + 1} & archive.built.images.keys() - {txid}):
            if archive.built.images[stale] == archive.built.images[txid]:
                continue
            archive.store.delete(key)
            archive.snapshot_of(txid, generation, archive.built.images[stale])
            for target in archive.targets:
                found = archive.outcome(target)
                if archive.reach(target, {key}) == (target or archive.newest):
                    assert found.txid == (target or archive.newest), (
                        key,
                        stale,
                        target,
                        found,
                    )
                else:
                    assert isinstance(found, (GapError, DamageError)), (key, stale, target)
            archive.mend(key)
