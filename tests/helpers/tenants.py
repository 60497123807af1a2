"""Buckets with many databases: copies of one small archive at many prefixes.

`restore_set` restores them with limits, files and a store of the test, which the public function
does not take.
"""

from replicator.recovery.limits import SetLimits
from replicator.recovery.restoration import Restoration
from replicator.recovery.set_report import SetMeter
from replicator.recovery.sources import in_bucket
from tests.helpers.bucket import BucketBuilder
from tests.helpers.restores import request


class Tenants:
    """One archive (`built`), whose objects `add` copies to further prefixes."""

    def __init__(self, directory, store, *names, **options):
        self.store = store
        self.built = BucketBuilder(directory, **options)
        self.built.insert(20)
        self.built.insert(5)
        self.built.cut()  # of two transactions
        self.built.insert(3)
        self.built.cut()
        self.built.close()
        self.add(*names)

    @property
    def newest(self):
        """The database after the last transaction."""
        return self.built.images[self.built.txid]

    def add(self, *names):
        """Copies the archive to these prefixes, exactly as they are written."""
        root = self.built.keys.root
        for key in self.built.objects():
            body, metadata = self.built.store.get(key), self.built.store.head(key).metadata
            for name in names:
                path = key.removeprefix(root)
                self.store.put(f"{name}/{path}" if name else path, body, metadata=metadata)

    def spoil(self, name):
        """Damages every segment and snapshot of a database."""
        for info in list(self.store.list(f"{name}/")):
            body = bytearray(self.store.get(info.key))
            body[len(body) // 2] ^= 1
            self.store.put(info.key, bytes(body), if_absent=False)


def restore_set(store, into, *, limits=None, files=None, progress=None, sources=None, **wishes):
    """``restore_all()`` on an open store, with limits and files of the test."""
    restoration = Restoration(
        request(**wishes),
        into,
        SetMeter(progress),
        files=files,
        limits=limits or SetLimits(),
    )
    return restoration.run(in_bucket(store, "") if sources is None else sources)


def results(report):
    """{name: result} of a report."""
    return {each.name: each.result for each in report.databases}


def codes(report):
    """{name: (class, code)} of the failures of a report."""
    return {
        each.name: (type(each.error).__name__, each.error.code)
        for each in report.databases
        if each.result == "failed"
    }


def files_below(directory):
    """The paths of all files and links, relative to the directory, without restore markers."""
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if not path.is_dir() and path.name != "restored.json"
    )
