"""The time of birth of a file: it survives writes, and tells a new file from a removed one."""

import os
import time

from replicator.system.birth import born_ns


def birth_of(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return born_ns(fd)
    finally:
        os.close(fd)


def test_a_file_keeps_its_birth(tmp_path):
    """Writing, truncating and renaming change other times only."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    born = birth_of(path)
    assert born is None or abs(born - time.time_ns()) < 3600 * 10**9
    path.write_bytes(b"other")
    os.utime(path, ns=(5, 5))
    path.rename(tmp_path / "renamed")
    assert birth_of(tmp_path / "renamed") == born


def test_a_descriptor_that_is_closed_has_none():
    """Nothing is guessed."""
    fd = os.open(".", os.O_RDONLY)
    os.close(fd)
    assert born_ns(fd) is None
