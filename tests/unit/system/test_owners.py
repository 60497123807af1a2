"""Who can use a file, whom another file would lock out, and what a user can make."""

import os

import pytest

from replicator.system.owners import Identity, Owner, group_name, groups_of, shared_mode

A, B, GROUP, OTHER = 50001, 50002, 50011, 50012
NONE = frozenset()


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "can"),
    [
        (0o600, A, NONE, True),
        (0o060, A, frozenset({GROUP}), False),  # the owner's bits count for the owner
        (0o060, B, frozenset({GROUP}), True),
        (0o606, B, frozenset({GROUP}), False),  # and those of the group for a member
        (0o606, B, NONE, True),
        (0o000, 0, NONE, True),
        (0o444, B, NONE, False),
    ],
)
def test_who_can_read_and_write(mode, uid, groups, can):
    """The rule of the system: the first class that applies decides."""
    assert Owner(A, GROUP, mode).admits(uid, groups) == can


@pytest.mark.parametrize(
    ("old", "new", "excluded"),
    [
        (Owner(A, GROUP, 0o600), Owner(A, OTHER, 0o600), ""),
        (Owner(A, GROUP, 0o600), Owner(B, GROUP, 0o600), f"user {A}"),
        (Owner(A, GROUP, 0o660), Owner(B, GROUP, 0o660), ""),
        (Owner(A, GROUP, 0o660), Owner(A, OTHER, 0o660), f"group {GROUP}"),
        (Owner(A, GROUP, 0o660), Owner(A, OTHER, 0o666), ""),
        (Owner(A, GROUP, 0o640), Owner(A, OTHER, 0o640), ""),  # readers cannot use a WAL anyway
        (Owner(0, 0, 0o600), Owner(B, B, 0o600), ""),
    ],
)
def test_whom_another_file_would_lock_out(old, new, excluded):
    """The owner, and the group if it could write; root never."""
    assert new.locks_out(old, frozenset({GROUP})) == excluded


@pytest.mark.parametrize(
    ("identity", "mode", "made"),
    [
        (Identity(0, 0, NONE), 0o755, Owner(A, GROUP, 0o640)),
        (Identity(B, B, frozenset({B, GROUP})), 0o755, Owner(B, GROUP, 0o640)),
        (Identity(B, B, frozenset({B})), 0o755, Owner(B, B, 0o640)),
        (Identity(B, B, frozenset({B})), 0o2755, Owner(B, OTHER, 0o640)),
    ],
)
def test_what_a_user_can_make(identity, mode, made):
    """Only root gives files away; a group has to be one's own, or that of the directory."""
    assert identity.makes_like(Owner(A, GROUP, 0o640), Owner(A, OTHER, mode)) == made


def test_the_group_of_a_shared_directory_can_use_what_is_new_in_it():
    """But not in a directory for everybody, and not another group."""
    made = Owner(B, GROUP, 0o644)
    assert shared_mode(Owner(A, GROUP, 0o2775), made) == 0o060
    assert shared_mode(Owner(A, GROUP, 0o1777), made) == 0
    assert shared_mode(Owner(A, GROUP, 0o755), made) == 0
    assert shared_mode(Owner(A, OTHER, 0o2775), made) == 0


def test_unknown_users_and_groups():
    """A number without a name, as in a container, is shown as it is, and its user counts as a
    member of the file's group."""
    assert groups_of(Owner(A, GROUP, 0o600)) == {GROUP}
    assert group_name(GROUP) == str(GROUP)
    assert group_name(0) == "root"
    assert 0 in groups_of(Owner(0, GROUP, 0o600))
    assert Identity.current().uid == os.geteuid()
