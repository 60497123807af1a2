"""What a store says beside an object is a hint: damaged, swapped or lost, it changes nothing.

And an object in an older version of itself, whole and consistent, is not taken for the newer one.
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


def spoilt(each, key, rng):
    """The metadata of an object, damaged in one of many ways."""
    own = dict(each.saved[key][1])
    other = each.saved[rng.choice(list(each.saved))][1]
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


def wish(each, rng):
    """A target, by number or by time, and the transaction that it means."""
    target = rng.choice(each.targets)
    if target is None or rng.random() < 0.5:
        return target or each.newest, {"target": target}
    return target, {"target": None, "timestamp": to_text(commit_ms(target))}


@pytest.mark.timeout(effort(100, 3600))
def test_damaged_metadata(each, seed, scoreboard):
    """Any field of the metadata of up to three objects damaged, any target, by txid or by time:
    the restore is exact, for the objects themselves prove what they are."""
    rng = random.Random(seed)
    for _ in range(TRIES):
        keys = rng.sample(list(each.saved), rng.randint(1, 3))
        metadata = {key: spoilt(each, key, rng) for key in keys}
        for key in keys:
            each.put(key, each.saved[key][0], metadata[key])
        txid, options = wish(each, rng)
        found = each.outcome(**options)
        assert not isinstance(found, ReplicatorError), (metadata, options, found)
        assert found.txid == txid, (metadata, options)
        each.mend(*keys)
    scoreboard(
        f"metadata damaged in a bucket of {each.kind}",
        f"{TRIES} restores by txid or time, all exact, 0 refused",
    )


@pytest.mark.timeout(effort(100, 3600))
def test_flips_under_damaged_metadata(each, seed, scoreboard):
    """A flipped bit in an object and damaged metadata beside others: named, or exact."""
    rng = random.Random(seed)
    named = 0
    for _ in range(TRIES // 2):
        key, *others = rng.sample(list(each.saved), 3)
        for other in others:
            each.put(other, each.saved[other][0], spoilt(each, other, rng))
        body = bytearray(each.saved[key][0])
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        each.put(key, bytes(body), spoilt(each, key, rng))
        txid, options = wish(each, rng)
        found = each.outcome(**options)
        if isinstance(found, ReplicatorError):
            assert isinstance(found, DamageError), (key, options, found)
            assert found.key == key, (key, options, found)
            named += 1
        else:
            assert found.txid == txid, (key, options)
        each.mend(key, *others)
    scoreboard(
        f"a flip and damaged metadata in a bucket of {each.kind}",
        f"{TRIES // 2} restores, {named} named the object, the others exact",
    )


def shortened(each, key):
    """The segment as it would be with its first transaction alone; None if it has but one."""
    summary, payload = decode_segment(each.saved[key][0], key)
    header, trailer = summary.header, summary.trailer
    if len(trailer.commit_frames) < 2:
        return None
    frames = trailer.commit_frames[0]
    image = each.built.images[header.first_txid]
    built = each.built
    built.generation, own = header.generation, built.generation
    try:
        return built.encode(
            header.kind,
            header.first_txid,
            header.first_txid,
            payload[: 32 + frames * (512 + 24)],
            DatabaseState(len(image) // 512, each.checksum(image)),
            trailer.checksum_before,
            trailer.commit_frames[:1],
            trailer.commit_times_ms[:1],
        )
    finally:
        built.generation = own


def test_older_segments(each):
    """A shorter, consistent version in the place of a segment: what it lacks is named as
    missing, all before it and all after the next snapshot is restored."""
    tried = 0
    for step in each.steps:
        older = shortened(each, step.key)
        if older is None:
            continue
        body, summary = older
        for metadata in (summary.metadata(), each.saved[step.key][1], {}):
            each.put(step.key, body, metadata)
            for target in each.targets:
                _check_shortened(each, step, target)
        each.mend(step.key)
        tried += 1
    assert tried >= 1


def _check_shortened(each, step, target):
    best, merge = each.reach(target, {step.key}), "merged/" in step.key  # which name their end
    if best == step.first - 1 and not merge and target != best:
        best = step.first
    found = each.outcome(target)
    last = step.last == each.newest and not merge  # nobody else speaks of what it lost
    if target == best or (target is None and (best == each.newest or last)):
        assert getattr(found, "txid", found) == best, (step, target, found)
    else:
        assert isinstance(found, (GapError, DamageError)), (step, target, found)


def test_older_snapshots(each):
    """A snapshot whose content is an earlier state: never restored, by whatever metadata."""
    for key in [key for key in each.saved if "snapshots/" in key]:
        txid = int(key.split("/")[-1][:16], 16)
        generation = key[-len(".sqlite.zst") - 36 : -len(".sqlite.zst")]
        for stale in sorted({1, txid - 1, txid + 1} & each.built.images.keys() - {txid}):
            if each.built.images[stale] == each.built.images[txid]:
                continue
            each.store.delete(key)
            each.snapshot_of(txid, generation, each.built.images[stale])
            for target in each.targets:
                found = each.outcome(target)
                if each.reach(target, {key}) == (target or each.newest):
                    assert found.txid == (target or each.newest), (key, stale, target, found)
                else:
                    assert isinstance(found, (GapError, DamageError)), (key, stale, target)
            each.mend(key)
