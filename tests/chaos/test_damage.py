"""Damage to every object: each bit flipped, each object removed, truncated, swapped or copied.

For every object of the small archive there is a target that needs it: a restore to that target
finds the damage and names the object. Restores to other targets are exact. `SmallArchive.outcome`
checks after each restore that success never comes with a wrong file.
"""

import random

import pytest

from replicator.errors import DamageError, GapError, NoBackup, ReplicatorError
from tests.helpers.small_archive import named_by
from tests.plugins.scoreboard import effort

ERRORS = (DamageError, GapError, NoBackup)
FLIPS, OLDER_FLIPS, OTHERS = effort(750, None), effort(150, None), effort(250, None)


def some(rng, cases, count):
    """All cases in the full version, otherwise a sample."""
    return cases if count is None else rng.sample(cases, min(count, len(cases)))


def flipped(body, bit):
    bad = bytearray(body)
    bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


@pytest.mark.timeout(effort(100, 3600))
def test_every_flipped_bit(archive, seed, scoreboard):
    """A restore that needs the object names it; every other restore is exact."""
    rng = random.Random(seed)
    needs = archive.needs()
    bits = [(key, bit) for key in needs for bit in range(8 * len(archive.saved[key][0]))]
    others = [(key, target) for key in needs for target in archive.targets if target != needs[key]]
    detected = exact = 0
    for key, bit in (tried := some(rng, bits, FLIPS)):
        archive.put(key, flipped(archive.saved[key][0], bit))
        archive.named(key, needs[key], bit)
        detected += 1
        if bit % effort(50, 8) == 0:
            _, target = rng.choice([case for case in others if case[0] == key])
            found = archive.outcome(target)
            if isinstance(found, ReplicatorError):
                assert isinstance(found, DamageError)
                assert found.key == key
            else:
                assert target in (None, found.txid)
                exact += 1
        archive.mend(key)
    scoreboard(
        f"one flipped bit, {len(needs)} objects of a bucket of {archive.kind}",
        f"{len(tried)} flips, {detected} detected and named; {exact} restores to other "
        "targets exact, 0 wrong files",
    )


@pytest.mark.timeout(effort(100, 3600))
def test_older_state_in_place_of_a_damaged_one(archive, seed, scoreboard):
    """With --allow-older a restore gives the newest provable state and counts the lost
    transactions; the test finds that state by trying every path without the object."""
    rng = random.Random(seed)
    cases = [
        (key, target, byte)
        for key, target in archive.needs().items()
        for byte in range(len(archive.saved[key][0]))
    ]
    for key, target, byte in (tried := some(rng, cases, OLDER_FLIPS)):
        archive.put(key, flipped(archive.saved[key][0], 8 * byte + byte % 8))
        wanted, best = target or archive.newest, archive.reach(target, {key})
        found = archive.outcome(target, allow_older=True)
        if best == 0:
            assert isinstance(found, ERRORS), (key, target, byte)
        else:
            assert (found.txid, found.lost_txids) == (best, wanted - best), (key, target, byte)
        archive.mend(key)
    scoreboard(
        f"--allow-older after a flip in a bucket of {archive.kind}",
        f"{len(tried)} restores, each the newest provable state, losses counted",
    )


@pytest.mark.timeout(effort(100, 1800))
def test_every_length(archive, seed, scoreboard):
    """A restore names an object that is truncated anywhere or has bytes appended."""
    rng = random.Random(seed)
    needs = archive.needs()
    cases = [
        (key, body[:size])
        for key in needs
        for body in [archive.saved[key][0]]
        for size in range(len(body))
    ]
    tried = some(rng, cases, OTHERS)
    tried += [
        (key, body + more)
        for key in needs
        for body in [archive.saved[key][0]]
        for more in (b"\0", body[-16:], body[-300:], body)
    ]
    for key, body in tried:
        archive.put(key, body)
        archive.named(key, needs[key], len(body))
        archive.mend(key)
    scoreboard(
        f"objects cut short or prolonged in a bucket of {archive.kind}",
        f"{len(tried)} tries, {len(tried)} detected and named",
    )


def test_every_removal(archive, scoreboard):
    """Without any one object, each target is exact by another path, or a gap that names it."""
    exact = gaps = 0
    for key in archive.saved:
        archive.store.delete(key)
        for target in archive.targets:
            found = archive.outcome(target)
            best, last = archive.reach(target, {key}), _end_without(archive, key)
            wanted = min(archive.newest, last) if target is None else target
            if best == wanted:
                assert getattr(found, "txid", None) == best, (key, target, found)
                exact += 1
            else:
                assert isinstance(found, GapError), (key, target, found)
                assert _speaks_of(str(found), best + 1, wanted), (key, target, str(found))
                gaps += 1
            older = archive.outcome(target, allow_older=True)
            assert getattr(older, "txid", 0) == best, (key, target, older)
        archive.mend(key)
    scoreboard(
        f"objects removed from a bucket of {archive.kind}",
        f"{len(archive.saved)} objects x {len(archive.targets)} targets: {exact} exact, {gaps} "
        "gaps named, 0 wrong files",
    )


def _end_without(small, key):
    """The apparent end of the log: no object refers to transactions after it."""
    return max(step.last for step in small.steps if step.key != key)


def _speaks_of(message, first, last):
    """True if the error names a missing transaction, or the obstacle before it."""
    return any(
        word in message
        for word in (
            f"transactions {first}",
            f"transaction {last} ",
            "begins generation",
            "kept as one step",
            "before the oldest snapshot",
        )
    )


@pytest.mark.timeout(effort(100, 1800))
def test_every_swap(archive, seed, scoreboard):
    """Each object under the key of each other one, with any metadata: named, or not needed."""
    rng = random.Random(seed)
    needs = archive.needs()
    cases = [
        (key, other, which)
        for key in needs
        for other in needs
        if other != key
        for which in ("own", "other", "none")
    ]
    detected = 0
    for key, other, which in (tried := some(rng, cases, OTHERS)):
        metadata = {
            "own": archive.saved[key][1],
            "other": archive.saved[other][1],
            "none": {},
        }[which]
        archive.put(key, archive.saved[other][0], metadata)
        found = archive.outcome(needs[key])
        if named_by(found) == key:
            detected += 1
        else:
            assert isinstance(found, (GapError, NoBackup)), (key, other, which, found)
        target = rng.choice(archive.targets)
        found = archive.outcome(target)
        assert isinstance(found, ERRORS) or target in (None, found.txid), (key, other, target)
        archive.mend(key)
    scoreboard(
        f"objects swapped in a bucket of {archive.kind}",
        f"{len(tried)} swaps, {detected} named as damage, {len(tried) - detected} as a "
        "gap, 0 wrong files",
    )


def free_keys(small):
    """Keys without an object, at which a copy may appear."""
    keys = small.built.keys
    free = [keys.wal(txid) for txid in range(1, small.newest + 3)]
    free += [
        keys.snapshot(txid, generation)
        for txid in (2, 6, 9, small.newest + 1)
        for generation in {step.generation for step in small.steps}
    ]
    free += [
        keys.merged(level, *txids)
        for level in (1, 2)
        for txids in ((2, 4), (5, 6), (8, 9), (8, small.newest), (8, small.newest + 1))
    ]
    return [key for key in free if key not in small.saved]


@pytest.mark.timeout(effort(100, 1800))
def test_every_copy(archive, seed, scoreboard):
    """With a copy of any object under any other key, a restore is exact or names the copy."""
    rng = random.Random(seed)
    cases = [
        (key, key_of_copy, target)
        for key in archive.saved
        for key_of_copy in free_keys(archive)
        for target in archive.targets
    ]
    exact = 0
    for key, key_of_copy, target in (tried := some(rng, cases, OTHERS)):
        archive.store.put(key_of_copy, *archive.saved[key][:1], metadata=archive.saved[key][1])
        found = archive.outcome(target)
        if isinstance(found, ReplicatorError):
            if isinstance(found, DamageError):
                assert found.key == key_of_copy, (key, key_of_copy, target, found)
            else:  # a key behind a hole implies transactions that do not exist
                assert key_of_copy == archive.built.keys.wal(archive.newest + 2), (
                    key,
                    key_of_copy,
                    target,
                    found,
                )
                assert f"transactions {archive.newest + 1} are missing" in str(found)
            archive.exact(target, allow_older=True)
        else:
            assert target in (None, found.txid), (key, key_of_copy, target)
            assert target or found.txid == archive.newest, (key, key_of_copy)
            exact += 1
        archive.store.delete(key_of_copy)
    scoreboard(
        f"objects under a second name in a bucket of {archive.kind}",
        f"{len(tried)} copies, {exact} restores exact, {len(tried) - exact} named the "
        "copy, 0 wrong files",
    )
