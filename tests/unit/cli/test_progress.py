"""replicator.cli.progress: a bar for people, lines for everything else."""

import json

from replicator.cli import progress
from replicator.recovery.progress import Progress


def test_json_lines_are_few_and_never_miss_a_phase_or_its_end(capsys):
    """Within a phase at most one line in half a second; its first and last always."""
    now = 0.0
    listen = progress.json_lines(lambda: now)
    for done in range(101):
        now += 0.1
        listen(Progress("segments", done, 100, 0, 1))
    listen(Progress("publish"))
    lines = [json.loads(line)["progress"] for line in capsys.readouterr().err.splitlines()]
    assert [line["phase"] for line in lines] == ["segments"] * (len(lines) - 1) + ["publish"]
    assert lines[0]["done_bytes"] == 0
    assert lines[-2]["done_bytes"] == 100
    assert 10 <= len(lines) <= 25


def test_short_lines_are_one_a_phase(capsys):
    """A log file is not filled with percentages."""
    with progress.shown(as_json=False) as listen:
        for now in (
            Progress("plan"),
            Progress("segments", 0, 2048, 0, 3),
            Progress("segments", 9, 2048, 0, 3),
            Progress("mystery"),
        ):
            listen(now)
    assert capsys.readouterr().err.splitlines() == [
        "planning",
        "fetching segments: 2.0 KiB",
        "mystery",
    ]


def test_with_json_the_listener_writes_json(capsys):
    """The choice follows --json, terminal or not."""
    with progress.shown(as_json=True) as listen:
        listen(Progress("plan"))
    assert json.loads(capsys.readouterr().err)["progress"]["phase"] == "plan"


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    """The bar names the phase and is gone when the block ends."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress.shown(as_json=False) as listen:
        listen(Progress("snapshot", 512, 1024, 0, 1))
    assert "fetching the snapshot" in capsys.readouterr().err


def test_trouble_is_told_once_for_the_same_words(capsys, monkeypatch):
    """A person who waits for the store sees the reason at once, and once."""
    for tty in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda tty=tty: tty)
        with progress.shown(as_json=False) as listen:
            for words in ("the store [x] is away", "the store [x] is away", "it hangs"):
                listen(Progress("plan", trouble=words))
        said = capsys.readouterr().err
        assert said.count("the store [x] is away; trying again") == 1
        assert said.count("it hangs; trying again") == 1


def test_trouble_is_never_held_back_from_programs(capsys):
    """The half second between two JSON lines is for figures, not for failures."""
    listen = progress.json_lines(lambda: 0.0)
    listen(Progress("segments", 1, 9))
    listen(Progress("segments", 1, 9, trouble="away"))
    lines = [json.loads(line)["progress"] for line in capsys.readouterr().err.splitlines()]
    assert [line["trouble"] for line in lines] == ["", "away"]
