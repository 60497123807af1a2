"""status, flush and snapshot: the answers of a sidecar, formatted.

The control socket is the real one; a replicator with fixed answers serves it.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest

from replicator import cli
from replicator.cli import status as status_command
from replicator.errors import NotDurable
from replicator.metrics import Metrics
from replicator.model import Position, ReplicationStatus
from tests.helpers.control import answering

WELL = ReplicationStatus(
    running=True,
    healthy=True,
    state="following",
    database="/srv/app[1].db",
    url="s3://backups/app.db",
    generation="g1",
    txid=1234,
    durable_txid=1234,
    pending_segments=0,
    pending_bytes=0,
    lag_seconds=0.0,
    lag_bytes=0,
    wal_frame_count=17,
    last_wal_sync=60_000,
    last_snapshot=30_000,
    last_snapshot_txid=1000,
    failed_uploads=0,
    uploaded_bytes=2048,
    uploaded_objects=2,
    roll_overs=3,
    write_lock_holds=0,
    longest_write_lock_ms=0.0,
    last_error=None,
    last_error_at=None,
)

ILL = dataclasses.replace(
    WELL,
    healthy=False,
    state="stalled",
    durable_txid=1200,
    pending_segments=1,
    pending_bytes=4096,
    lag_seconds=61.0,
    lag_bytes=8192,
    failed_uploads=5,
    last_snapshot=None,
    last_snapshot_txid=None,
    write_lock_holds=2,
    longest_write_lock_ms=12.0,
    last_error="the store [x] is away",
    last_error_at=90_000,
)


class Replicator:
    """Answers the requests of the control socket."""

    def __init__(self):
        self.metrics = Metrics()
        self.now = WELL
        self.asked = []

    def status(self):
        return self.now

    def flush(self, timeout, *, snapshot):
        self.asked.append((timeout, snapshot))
        if timeout == 1:
            raise NotDurable("34 transactions are not durable yet", hint="try again")
        return Position("g1", 1234)

    def snapshot(self, timeout):
        self.asked.append(timeout)
        return 1300

    def mark(self, name, timeout, *, note, move):
        self.asked.append((name, timeout, note, move))
        return Position("g1", 1234)


@pytest.fixture
def short_path():
    """The path of a database, short enough for the address of a socket in its directory."""
    with tempfile.TemporaryDirectory(prefix="short-") as home:
        yield str(Path(home) / "app.db")


@pytest.fixture
def answering_sidecar(short_path):
    """A sidecar that answers at the control socket."""
    replicator = Replicator()
    directory = Path(short_path).with_name(".app.db-replicator")
    directory.mkdir()
    with answering(directory, replicator):
        yield replicator


def test_a_healthy_sidecar_says_so_and_exits_0(run, short_path, answering_sidecar):
    """The verdict comes first; the path is shown as it is, brackets and all."""
    code, out, err = run("status", short_path)
    assert (code, err) == (0, "")
    first, *rest = out.splitlines()
    assert first == "● healthy  following  /srv/app[1].db → s3://backups/app.db"
    assert "  durable        transaction 1,234, which is all of it" in rest
    assert "  write lock     never taken" in rest
    assert not [line for line in rest if "error" in line]


def test_an_ill_sidecar_says_what_is_wrong_and_exits_5(run, short_path, answering_sidecar):
    """A script can rely on the code: something is not durable."""
    answering_sidecar.now = ILL
    code, out, _ = run("status", short_path)
    assert code == 5
    assert out.startswith("● NOT HEALTHY  stalled")
    assert "transaction 1,200 of 1,234, 34 behind" in out
    assert "the store [x] is away" in out
    assert "5 upload attempts" in out
    assert "taken 2 times, 12 ms at most" in out


def test_a_sidecar_that_waits_is_named(run, short_path, answering_sidecar):
    """A deploy that overlaps: which process continues."""
    assert "standby" not in run("status", short_path)[1]
    answering_sidecar.now = dataclasses.replace(WELL, standby=[17, 4711])
    _, out, _ = run("status", short_path)
    assert "  standby        process 17, 4711, which continues" in out
    assert json.loads(run("status", short_path, "--json")[1])["standby"] == [17, 4711]


def test_ages_count_from_now(capsys):
    """The figures an operator compares are ages, not dates."""
    status_command.show(ILL, now=100.0)
    out = capsys.readouterr().out
    assert "last upload    40.0 s ago" in out
    assert "last snapshot  never" in out
    assert "away, 10.0 s ago" in out


def test_the_json_status_is_every_field(run, short_path, answering_sidecar):
    """Nothing is left out, nothing renamed."""
    code, out, _ = run("status", short_path, "--json")
    assert code == 0
    assert json.loads(out) == dataclasses.asdict(WELL)


def test_flush_passes_its_options_on_and_names_the_position(run, short_path, answering_sidecar):
    """Times are read as the configuration reads them."""
    code, out, _ = run("flush", short_path, "--timeout", "1m", "--snapshot")
    assert (code, out) == (0, "durable up to transaction 1,234\n")
    assert answering_sidecar.asked == [(60.0, True)]


def test_flush_in_json_is_the_position(run, short_path, answering_sidecar):
    """Without --timeout it waits."""
    assert json.loads(run("flush", short_path, "--json")[1]) == {"generation": "g1", "txid": 1234}
    assert answering_sidecar.asked == [(None, False)]


def test_a_flush_that_fails_carries_the_sidecars_error(run, short_path, answering_sidecar):
    """Class, message, hint and exit code cross the socket."""
    assert run("flush", short_path, "--timeout", "1") == (
        5,
        "",
        "error: 34 transactions are not durable yet\nhint:  try again\n",
    )


def test_snapshot_names_its_transaction(run, short_path, answering_sidecar):
    """For people and for programs."""
    assert run("snapshot", short_path)[1] == "snapshot of transaction 1,300 is in the bucket\n"
    assert json.loads(run("snapshot", short_path, "--json")[1]) == {"txid": 1300}


def test_the_cache_directory_can_be_elsewhere(run, tmp_path):
    """--cache-dir names the directory of the socket for any database."""
    elsewhere = tmp_path / "cache"
    elsewhere.mkdir()
    with answering(elsewhere, Replicator()):
        assert run("status", "/nowhere/x.db", "--cache-dir", str(elsewhere))[0] == 0


@pytest.mark.parametrize("command", ["status", "flush", "snapshot"])
def test_without_a_sidecar_each_says_how_to_start_one(run, short_path, command):
    """A missing sidecar is an error with a next step, in JSON too."""
    code, out, err = run(command, short_path, "--json")
    document = json.loads(err)
    assert (code, out, document["kind"]) == (1, "", "NotRunning")
    assert "replicator run" in document["hint"]


def test_a_long_path_makes_no_difference(run, tmp_path):
    """A socket's address fits 108 bytes; a longer path gives the same error."""
    code, _, err = run("status", str(tmp_path / ("x" * 120) / "app.db"), "--json")
    assert (code, json.loads(err)["kind"]) == (1, "NotRunning")


# --------------------------------------------------------------------------- several databases


@pytest.fixture
def fleet_file(short_path, answering_sidecar):
    """A file of two databases, of which one has a sidecar."""
    file = Path(short_path).with_name("replicator.toml")
    file.write_text(
        'bucket = "backups"\n[[database]]\npath = "app.db"\n[[database]]\npath = "other.db"\n'
    )
    return str(file)


def test_all_databases_of_a_file_are_a_table(run, fleet_file, answering_sidecar):
    """One row each, with the reason of those that are not healthy."""
    code, out, _ = run("status", "--config", fleet_file)
    assert code == 1  # of the one that does not answer
    _, first, second = out.splitlines()
    assert "following" in first
    assert "1,234 of 1,234" in first
    assert "not running" in second
    answering_sidecar.now = ILL
    code, out, _ = run("status", "--config", fleet_file)
    assert code == 5
    assert "the store [x] is away" in out


def test_all_databases_of_a_file_are_a_list(run, fleet_file, answering_sidecar):
    """For programs: what each sidecar answers, or why none did."""
    code, out, _ = run("status", "--config", fleet_file, "--json")
    first, second = json.loads(out)
    assert (code, first["healthy"], first["txid"]) == (1, True, 1234)
    assert second["kind"] == "NotRunning"
    assert second["url"] == "s3://backups/other.db"


def test_all_databases_of_a_file_are_flushed(run, fleet_file, answering_sidecar):
    """Failures are named, and the first one gives the exit code."""
    code, out, _ = run("flush", "--config", fleet_file)
    assert code == 1
    durable, missing = out.splitlines()
    assert durable.startswith("durable up to transaction 1,234")
    assert missing.startswith("not durable: no sidecar answers")
    assert json.loads(run("flush", "--config", fleet_file, "--json")[1])[0]["txid"] == 1234


def test_all_databases_of_a_file_are_marked(run, fleet_file, answering_sidecar):
    """One word is the name; failures are named, and the first one gives the exit code."""
    code, out, _ = run("mark", "release-2", "--config", fleet_file, "--note", "why")
    assert code == 1
    marked, missing = out.splitlines()
    assert marked.startswith("marked release-2: transaction 1,234 is durable and pinned")
    assert missing.startswith("not marked: no sidecar answers")
    assert answering_sidecar.asked == [("release-2", None, "why", False)]
    found = json.loads(run("mark", "b", "--config", fleet_file, "--json")[1])
    assert [each["name"] for each in found] == ["b", "b"]


def test_the_variable_names_the_database_to_mark(run, short_path, answering_sidecar, monkeypatch):
    """Then one word is the name, and none is too few."""
    monkeypatch.setenv("REPLICATOR_DB_PATH", short_path)
    assert run("mark", "here")[0] == 0
    assert answering_sidecar.asked == [("here", None, "", False)]
    assert run("mark")[0] == 2
    monkeypatch.delenv("REPLICATOR_DB_PATH")
    assert run("mark", "here")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["flush"], "no database is named"),
        (["run"], "no database is named"),
        (["run", "x.db", "--config", "{many}"], "x.db is not found in PATH"),
    ],
)
def test_a_database_or_a_file_is_named(run, fleet_file, arguments, words):
    """Exactly one of the two; a command needs --."""
    code, _, err = run(*(each.format(many=fleet_file) for each in arguments))
    assert code == 2
    assert words in err


def test_a_database_of_the_environment_is_no_command(run, fleet_file, monkeypatch):
    """The variable takes the position of the first word of the command."""
    monkeypatch.setenv("REPLICATOR_DB_PATH", "true")
    code, _, err = run("run", "--config", fleet_file)
    assert code == 2
    assert "unset REPLICATOR_DB_PATH" in err


@pytest.mark.parametrize("command", ["status", "flush"])
def test_a_file_and_a_database_of_the_environment_are_refused(
    run, fleet_file, short_path, monkeypatch, command
):
    """The option is not ignored; a database on the command line precedes a file of a variable."""
    monkeypatch.setenv("REPLICATOR_DB_PATH", short_path)
    code, _, err = run(command, "--config", fleet_file, "--json")
    assert (code, json.loads(err)["setting"]) == (2, "db_path")
    monkeypatch.delenv("REPLICATOR_DB_PATH")
    monkeypatch.setenv("REPLICATOR_CONFIG", fleet_file)
    assert json.loads(run(command, short_path, "--json")[1])["txid"] == 1234


def requested(*arguments):
    """The request that ``replicator run`` passes on."""
    requests = []
    assert cli.call(["run", *arguments], lambda request: requests.append(request) or 0) == 0
    (request,) = requests
    return request


def test_run_requests_the_databases_of_a_file(fleet_file):
    """With the command, its first word included, and the options of the command line."""
    request = requested("--config", fleet_file, "--sync-interval", "3s", "--", "true", "x")
    assert (request.config_file, request.command) == (fleet_file, ["true", "x"])
    assert request.settings == {"sync_interval": 3.0}
    assert requested("--config", fleet_file).command is None


def test_run_requests_a_single_database(short_path):
    """Each option is typed: bytes, seconds, switches, paths."""
    request = requested(
        short_path, "--bucket", "b", "--max-cache-bytes", "2MiB", "--drill-scratch", "/tmp",
        "--no-keep", "--json",
    )  # fmt: skip
    assert (request.config_file, request.command, request.as_json) == (None, None, True)
    assert request.settings == {
        "db_path": str(short_path),
        "bucket": "b",
        "max_cache_bytes": 2 << 20,
        "drill_scratch": "/tmp",
        "keep": False,
    }
    assert requested(short_path, "--bucket", "b", "--", "true", "x").command == ["true", "x"]
    url = f"sqlite:///{short_path}?mode=rw"  # passed on as text: a path would lose a slash
    assert requested(url, "--bucket", "b").settings["db_path"] == url


def test_mark_names_the_state(run, short_path, answering_sidecar):
    """All options reach the sidecar, and its answer is shown with the name."""
    code, out, err = run("mark", short_path, "before-move")
    assert (code, err) == (0, "")
    assert out == "marked before-move: transaction 1,234 is durable and pinned\n"
    code, out, _ = run(
        "mark", short_path, "b", "--note", "why", "--move", "--timeout", "2s", "--json"
    )
    assert json.loads(out) == {"name": "b", "generation": "g1", "txid": 1234}
    assert answering_sidecar.asked == [("before-move", None, "", False), ("b", 2.0, "why", True)]


def test_mark_without_a_sidecar_names_the_other_way(run, short_path):
    """Nothing is marked: a bucket does not know what was committed here."""
    code, _, err = run("mark", short_path, "before-move", "--json")
    error = json.loads(err)
    assert (code, error["code"]) == (1, "not_running")
    assert "replicator pin newest --name" in error["hint"]
