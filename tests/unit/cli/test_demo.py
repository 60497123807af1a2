"""replicator.cli.demo: a demo that could not fail would show nothing."""

import shutil
import sqlite3

import pytest

from replicator.cli import demo as demo_command
from replicator.cli import demo_app
from replicator.errors import DamageError, ReplicatorError


@pytest.fixture
def demo():
    """A performance right before its last act: ten orders lost, ten restored."""
    with demo_command._directory() as home:
        yield _ready(demo_command.Demo(home, "http://127.0.0.1:1", {}, quiet=True))


def _ready(played):
    for place in (played.reference, played.restored):
        place.parent.mkdir()
    demo_app.create(played.reference, 10)
    shutil.copyfile(played.reference, played.restored)
    played.commits.write_text("9\n10\n")
    return played


def test_the_same_bytes_and_all_commits_are_identical(demo):
    """The last step finds no difference."""
    demo.compare()
    assert demo.figures == {"commits": 2, "orders": 10, "identical": True}


def test_one_flipped_bit_is_noticed(demo):
    """Even where SQLite would not look."""
    with demo.restored.open("r+b") as file:
        file.seek(60)  # the user version, which nothing reads
        file.write(b"\x01")
    demo.compare()
    assert demo.figures["identical"] is False


def test_a_missing_commit_is_noticed(demo):
    """The database has fewer orders than the application recorded."""
    demo.commits.write_text("11\n12\n")
    demo.compare()
    assert demo.figures["identical"] is False


def test_a_commit_without_its_note_is_no_difference(demo):
    """The writer may freeze between COMMIT and its note."""
    demo.commits.write_text("9\nunfin")
    demo.compare()
    assert demo.figures["identical"] is True


def test_a_difference_ends_the_command_with_damage():
    """Exit code 3, not a friendly sentence."""
    demo_command.require_identical({"identical": True})
    with pytest.raises(DamageError, match="differs"):
        demo_command.require_identical({"identical": False})


def test_a_sidecar_that_does_not_start_is_an_error_with_its_last_words(demo):
    """The log of the sidecar is in the temporary directory, which is about to go."""
    (demo.home / "sidecar.log").write_text("one\ntwo\nthree\nfour\n")
    demo.timeout = 0.2
    with pytest.raises(ReplicatorError, match="did not start") as caught:
        demo.until_following()
    assert caught.value.hint == "two / three / four"


def test_a_command_that_fails_is_an_error_with_its_words(demo):
    """The demo does not continue."""
    (demo.home / "sidecar.log").touch()
    with pytest.raises(ReplicatorError, match="no sidecar answers"):
        demo.cli("status", str(demo.database))


def test_the_environment_points_nowhere_else(demo, monkeypatch):
    """Neither a profile nor a setting of the machine reaches the demo's processes."""
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("REPLICATOR_URL", "s3://production")
    found = {
        name: value
        for name, value in demo.environment().items()
        if name.startswith(("AWS_", "REPLICATOR_"))
    }
    assert found == {"REPLICATOR_BUCKET": "demo", "REPLICATOR_ENDPOINT_URL": "http://127.0.0.1:1"}


def test_the_application_records_its_commits_and_nothing_else(demo, tmp_path):
    """A commit that fails is not recorded; numbers continue after the last one in the database."""
    real = demo_app._order

    def order(number):
        if number == 14:
            raise KeyboardInterrupt
        return real(number)

    with pytest.raises(KeyboardInterrupt):
        demo_app.write(demo.restored, tmp_path / "notes", order)
    assert (tmp_path / "notes").read_bytes() == b"11\n12\n13\n"
    assert demo_app.count(demo.restored) == 13


def test_orders_with_a_gap_are_not_counted(demo):
    """The first n or nothing."""
    connection = sqlite3.connect(demo.restored)
    connection.execute("DELETE FROM orders WHERE id = 5")
    connection.commit()
    connection.close()
    assert demo_app.count(demo.restored) == -1


def test_the_application_is_a_command(demo, capsys):
    """Each task prints its answer, if it has one."""
    demo_app.main("count", str(demo.restored))
    demo_app.main("image", str(demo.restored))
    assert capsys.readouterr().out == "10\n"
