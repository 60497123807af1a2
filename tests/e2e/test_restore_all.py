"""Restores of all databases that are killed and go on, and on a real server."""

import contextlib
import os
import signal

from replicator.archive.timespec import to_text
from replicator.recovery.limits import SetLimits
from replicator.system.clock import now_ms
from replicator.system.files import Files
from tests.helpers.replication import LONG, App, replicating, wait_for
from tests.helpers.tenants import Tenants, restore_set, results
from tests.plugins.scoreboard import effort

CALLS = 240  # a few more than a restore of these makes
NAMES = ("a.db", "b.db", "c/d.db", "c/e/f.db")


class Deadly(Files):
    """Kills the process at a system call."""

    def __init__(self, left):
        self.left = left

    def system(self, call, /, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().system(call, *args, **kwargs)


def killed(store, into, left):
    """The exit code of a process that restores all and is killed at its call number ``left``."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            restore_set(store, into, files=Deadly(left), limits=SetLimits(databases=2))
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def whole(into):
    """{name: bytes} of the databases that have their name."""
    found = {name: into / name for name in NAMES}
    return {name: path.read_bytes() for name, path in found.items() if path.exists()}


def test_a_killed_restore_goes_on(source_directory, directory_store, tmp_path):
    """After SIGKILL at many calls each file that has its name is whole. The same command then
    leaves exactly those alone, restores the others, and leaves no unfinished restore."""
    tenants = Tenants(source_directory, directory_store, *NAMES)
    ends, kept = set(), set()
    points = effort(10, CALLS)
    for left in (1 + CALLS * number // points for number in range(1, points + 1)):
        into = tmp_path / "into" / str(left)
        ends.add(killed(directory_store, into, left))
        before = whole(into)
        assert set(before.values()) <= {tenants.newest}
        report = restore_set(directory_store, into)
        assert results(report) == {
            name: "complete" if name in before else "restored" for name in NAMES
        }
        assert whole(into) == dict.fromkeys(NAMES, tenants.newest)
        assert not list(into.rglob("*.restoring"))
        kept.add(len(before))
    assert ends == {0, -signal.SIGKILL}
    assert len(kept) > 2  # killed with none, with some and with all of them restored


def test_databases_of_replicators_at_one_time(memory_store, tmp_path):
    """Each has exactly what was committed before that time, and the one that began later none; the
    same command without a time refuses those files, and brings them up to date with overwrite."""
    into, paths = tmp_path / "into", {name: tmp_path / name for name in ("a.db", "b.db", "late.db")}
    with contextlib.ExitStack() as stack:

        def begin(name):
            app = stack.enter_context(App(paths[name]))
            settings = {"url": f"s3://bucket/{name}"}
            return app, stack.enter_context(replicating(app.path, memory_store, **settings))

        running = [begin("a.db"), begin("b.db")]
        for app, replicator in running:
            app.insert(3)
            replicator.flush(LONG)
        moment = now_ms()
        then = {app.path.name: app.image() for app, _ in running}
        wait_for(lambda: now_ms() > moment)
        running.append(begin("late.db"))
        for app, replicator in running:
            app.insert(5)
            replicator.flush(LONG)
        at = restore_set(memory_store, into, timestamp=to_text(moment))
        assert results(at) == {"a.db": "restored", "b.db": "restored", "late.db": "not_yet"}
        assert {name: (into / name).read_bytes() for name in then} == then
        again = restore_set(memory_store, into, timestamp=to_text(moment))
        assert again.counts == {"complete": 2, "not_yet": 1}
        assert restore_set(memory_store, into).counts == {"failed": 2, "restored": 1}
        assert restore_set(memory_store, into, overwrite=True).exit_code == 0
        newest = {app.path.name: app.image() for app, _ in running}
    assert {name: (into / name).read_bytes() for name in paths} == newest


def test_on_a_real_server(cli, source_directory, tmp_path):
    """One command restores the databases of a bucket on SeaweedFS; a second one leaves them alone,
    names the one that is damaged by then, and restores the one that is missing."""
    with contextlib.closing(cli.store()) as store:
        tenants = Tenants(source_directory, store, *(f"t/{number}.db" for number in range(12)))
        options = ("restore", *cli.bucket_options, "--all", "--into", tmp_path / "into", "--json")
        assert cli.call(*options).json["counts"] == {"restored": 12}
        assert {path.read_bytes() for path in (tmp_path / "into/t").glob("*.db")} == {
            tenants.newest
        }
        tenants.spoil("t/5.db")
        (tmp_path / "into/t/7.db").unlink()
        done = cli.call(*options)
    assert (done.code, done.json["counts"]) == (3, {"complete": 10, "restored": 1, "failed": 1})
