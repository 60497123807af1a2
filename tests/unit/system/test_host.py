"""Facts about the machine: unsafe versions of SQLite and unsafe file systems."""

from pathlib import Path

import pytest

from replicator.system import host


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 49, 9), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_versions_with_the_wal_reset_bug(version, affected):
    """Exactly the releases from 3.7.0 on are affected, but for 3.51.3 and two backports."""
    assert host.has_wal_reset_bug(version) is affected


def test_the_version_is_that_of_the_library():
    """Three numbers."""
    assert host.sqlite_version() >= (3, 7, 0)


@pytest.fixture
def mounts(tmp_path) -> Path:
    """A file in the format of /proc/self/mountinfo."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /srv rw shared:2 - nfs4 server:/export rw\n"
        "31 30 8:2 / /srv/local\\040disk rw shared:3 - xfs /dev/sdb1 rw\n"
        "garbage\n"
    )
    return table


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/home/a.db", "ext4", False),
        ("/srv/a.db", "nfs4", True),
        ("/srv", "nfs4", True),
        ("/srvother/a.db", "ext4", False),
        ("/srv/local disk/a.db", "xfs", False),
    ],
)
def test_the_longest_mount_point_wins(mounts, path, kind, network):
    """A path belongs to the mount of its deepest directory; escapes are decoded."""
    found = host.file_system(Path(path), mounts)
    assert (found.kind, found.is_network) == (kind, network)


def test_without_a_mount_table_the_file_system_is_unknown(tmp_path):
    """It then counts as local."""
    found = host.file_system(tmp_path, tmp_path / "none")
    assert (found.kind, found.is_network) == ("unknown", False)
