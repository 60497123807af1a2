"""config/integrity_key.py: the file with the keys."""

import pytest

from replicator.config.integrity_key import LONGEST_FILE, SHORTEST_KEY, read_keys
from replicator.errors import ConfigError
from tests.helpers.errors import raises

LONG_ENOUGH = b"k" * SHORTEST_KEY


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b" \n\n",
        b"k" * (SHORTEST_KEY - 1),
        LONG_ENOUGH + b"\nx",
        b"k" * (LONGEST_FILE + 1),
    ],
    ids=["none", "empty", "blank", "short", "short second", "too large"],
)
def test_a_file_without_good_keys_is_refused(tmp_path, content):
    """One weak key among good ones is enough, and a file of another kind is not read to its end."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with raises(ConfigError, setting="integrity_key"):
        read_keys(path)


def test_each_line_is_a_key(tmp_path):
    """Blank lines and the spaces around a key do not count."""
    path = tmp_path / "key"
    path.write_bytes(b" " + LONG_ENOUGH + b"\r\n\n" + 2 * LONG_ENOUGH)
    assert read_keys(path).keys == (LONG_ENOUGH, 2 * LONG_ENOUGH)
