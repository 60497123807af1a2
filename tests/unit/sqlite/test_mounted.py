"""sqlite/mounted.py: a file that is mounted alone is refused, because its WAL is not shared."""

import pytest

from replicator.errors import DatabaseUnusable
from replicator.sqlite.live import LiveDatabase
from replicator.sqlite.mounted import require_unmounted
from tests.helpers.errors import raises
from tests.helpers.replication import App


def table(tmp_path, *mounts):
    """A mount table, in which the mounts are binds of files on the root file system."""
    lines = ["1 0 8:1 / / rw - ext4 /dev/sda1 rw"]
    lines += [
        f"{n} 1 8:1 /src {str(mount).replace(' ', chr(92) + '040')} rw - ext4 /dev/sda1 rw"
        for n, mount in enumerate(mounts, 2)
    ]
    found = tmp_path / "mountinfo"
    found.write_text("\n".join(lines) + "\n")
    return found


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_mounted_file_is_refused_with_the_way_out(tmp_path, suffix):
    """The database, or a file that SQLite keeps next to it."""
    path = tmp_path / "my app.db"
    mounts = table(tmp_path, f"{path}{suffix}")
    with raises(DatabaseUnusable, code="file_mounted", path=str(path)) as refused:
        require_unmounted(path, mounts)
    assert str(tmp_path) in refused.value.hint


def test_a_mounted_directory_is_fine(tmp_path):
    """So is another file that is mounted, and a machine without a mount table."""
    path = tmp_path / "app.db"
    require_unmounted(path, table(tmp_path, tmp_path, f"{path}.txt", tmp_path / "other.db"))
    require_unmounted(path, tmp_path / "none")


def test_the_live_database_looks_for_mounts_where_a_link_leads(tmp_path):
    """Before it opens anything: the application is not disturbed."""
    path = tmp_path / "app.db"
    with App(path) as app:
        app.insert()
    (tmp_path / "link.db").symlink_to(path)
    with raises(DatabaseUnusable, code="file_mounted"):
        LiveDatabase(tmp_path / "link.db", mounts=table(tmp_path, path))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["app.db", "link.db", "mountinfo"]
