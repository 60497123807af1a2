"""Temporary directories: each is removed at the end of its work, or with all others."""

from replicator.system.scratch import discard_all, scratch_directory


def test_the_directories_of_work_that_does_not_end(tmp_path):
    """A process that leaves its threads removes them all; the end of the work finds nothing."""
    with scratch_directory(tmp_path) as first, scratch_directory(tmp_path) as second:
        (first / "file").write_bytes(b"x")
        discard_all()
        assert not first.exists()
        assert not second.exists()
    assert list(tmp_path.iterdir()) == []
