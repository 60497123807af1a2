"""Any command line ends with an exit code of the documentation, and never with a traceback."""

import contextlib
import errno
import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.cli import COMMANDS, call
from replicator.config.settings import SETTINGS
from tests.helpers.replication import App

# ``demo`` takes no input and starts servers; ``run`` passes its request to the test.
NAMES = sorted(set(COMMANDS) - {"demo"})
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130, 141}

OPTIONS = sorted(
    {setting.option for setting in SETTINGS.values()}
    | {
        *(
            "--json",
            "--output",
            "-o",
            "--txid",
            "--time",
            "--overwrite",
            "--if-missing",
            "--verify",
        ),
        *("--snapshot", "--timeout", "--config", "--cache-dir", "--assert", "--against", "--note"),
        *("--transactions", "--dry-run", "--help", "--version", "--data", "--database", "--limit"),
    }
)

ODD_TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "-",
            "--",
            ".",
            "..",
            "/",
            "~",
            "~nobody/x",
            "\udc80\udcff",
            "a\nb",
            "a\x00b",
            "x" * 300,
            "x/" * 3000,
            "%s%n",
            "[red]x[/]",
            "sqlite:///app.db",
            "sqlite:////abs.db",
            "file:app.db?mode=ro",
            "s3://",
            "s3://bucket/a?b=c",
            "file://",
            "http://[::1",
            "1e999",
            "-1",
            "0",
            "nan",
            "inf",
            "99999999999999999999999",
            "10s",
            "1 GiB",
            "2026-02-30",
            "2026-01-01T00:00:00Z",
            "yesterday",
            "SELECT 1",
            "*.db",
            "[",
            "app[1].db",
        ]
    ),
)


@pytest.fixture(scope="module")
def home_of_odd_files(tmp_path_factory):
    """A directory with a database, files that are none, and a bucket that holds junk."""
    home = tmp_path_factory.mktemp("place")
    with App(home / "app.db") as app:
        app.insert(3)
    (home / "empty.db").touch()
    (home / "text.db").write_text("not a database")
    (home / "directory.db").mkdir()
    (home / "broken.toml").write_text("[[database]\n")
    (home / "odd.toml").write_text('url = 3\n[[database]]\npath = ["a"]\n')
    (home / "loop").symlink_to("loop")
    for name in ("wal/0000000000000001.wal.zst", "snapshots/x", "metadata.json", "pins/1.json"):
        path = home / "bucket" / "app.db" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"[[[[" * 10)
    return home


class FullDisk(io.StringIO):
    """A stream whose every write fails."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def names_in(place):
    """Paths and addresses that exist, or nearly so."""
    files = ["app.db", "empty.db", "text.db", "directory.db", "broken.toml", "odd.toml", "loop"]
    paths = [str(place / name) for name in [*files, "missing.db", "no/such/directory.db"]]
    return [*files, *paths, f"file://{place}/bucket", f"file://{place}/none", "/dev/null"]


def run(place, arguments, stream):
    """The exit code of a command line whose output goes to memory, to a closed descriptor (then
    Python has no stream), or to a disk that is full."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(place))
        out = {"memory": io.StringIO(), "closed": None, "full": FullDisk()}[stream]
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(
            contextlib.redirect_stderr(io.StringIO() if stream != "closed" else None)
        )
        return call(arguments, start=lambda _: 0)


@given(data=st.data())
@settings(
    max_examples=int(os.environ.get("REPLICATOR_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_any_command_line(home_of_odd_files, data):
    """Arguments, odd paths, limits, and streams that were closed."""
    word = st.one_of(
        ODD_TEXT, st.sampled_from(names_in(home_of_odd_files)), st.sampled_from(OPTIONS)
    )
    name = data.draw(st.sampled_from(NAMES))
    known = st.tuples(
        st.just("--url"), st.sampled_from([f"file://{home_of_odd_files}/bucket", "file:///none"])
    )
    address = data.draw(st.one_of(known, st.just(())))
    words = data.draw(st.lists(word, max_size=6))
    if name == "open" and "--" in words:
        words = words[: words.index("--")]  # no command is run
    stream = data.draw(st.sampled_from(["memory", "memory", "closed", "full"]))
    code = run(home_of_odd_files, [name, *address, *words], stream)
    assert code in CODES, (code, name, words)
