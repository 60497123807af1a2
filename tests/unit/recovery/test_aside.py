"""A database that makes way keeps every byte, under a name of its own."""

import pytest

from replicator.errors import TargetExists
from replicator.recovery.aside import move_aside
from tests.helpers.replication import App


def test_all_files_move_together(path):
    """Database, WAL, journal and shared memory; the directory is as open as the database's."""
    contents = {f"app.db{suffix}": suffix.encode() for suffix in ("", "-wal", "-shm", "-journal")}
    for name, content in contents.items():
        path.with_name(name).write_bytes(content)
    path.parent.chmod(0o750)
    directory = move_aside(path)
    assert directory.parent == path.parent
    assert directory.name.startswith("app.db.stale-")
    assert directory.stat().st_mode & 0o777 == 0o750
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == contents
    assert not list(path.parent.glob("app.db*[!Z]"))


def test_a_second_one_gets_another_directory(path):
    """Nothing is overwritten, even within one second."""
    made = []
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        made.append(move_aside(path))
    assert [(directory / "app.db").read_bytes() for directory in made] == [b"one", b"two", b"three"]


def test_nothing_to_move(path):
    """No directory is made for it."""
    assert move_aside(path) is None
    assert list(path.parent.iterdir()) == []


def test_a_database_in_use_stays(path):
    """A connection would write to the moved file."""
    with App(path):
        with pytest.raises(TargetExists):
            move_aside(path)
        assert path.exists()
