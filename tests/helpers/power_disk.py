"""A disk that loses its power: every state in which a recorded stream of calls may leave it.

`Disk` plays the stream (see syscall_trace.py) call by call, and `Disk.cut` makes one of the states
that a power cut at this instant may leave behind. Durable is only what POSIX promises: content by
fsync or fdatasync of the file, names by fsync of the directory. Of everything later any subset
survives, in any order; writes survive in part, sector by sector, and where a file grew without its
data the disk holds zeros or the old content of the block.

Two things a file system does not do are left out: a rename is never torn in two, and a sector is
never half old. The ``store`` is on another machine, where the power stays on.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
REST = 0xA5  # the old content of a block before the file got it


@dataclass(eq=False)
class File:
    """``durable``: what a power cut leaves in any case. ``pending``: (call number, offset, data),
    or (call number, size, None) for a change of the size."""

    current: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list = field(default_factory=list)

    def change(self, number, offset, data):
        _apply(self.current, offset, data)
        self.pending.append((number, offset, data))

    def sync(self, before):
        kept = [step for step in self.pending if step[0] >= before]
        for step in self.pending:
            if step[0] < before:
                _apply(self.durable, *step[1:])
        self.pending = kept

    def survivor(self, rng, mood):
        """The content after a power cut."""
        if not self.pending or mood == "none":
            return bytes(self.durable)
        if mood == "all":
            return bytes(self.current)
        content = bytearray(self.durable)
        kept = self.pending
        if mood == "prefix":
            kept = kept[: rng.randint(0, len(kept))]
        for step, (_, offset, data) in enumerate(kept):
            if mood == "prefix" and step < len(kept) - 1:
                _apply(content, offset, data)
            elif data is None:
                _apply(content, offset, None) if rng.random() < 0.5 else None
            else:
                _tear(content, offset, data, rng)
        return bytes(content)


def _apply(content, offset, data):
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


def _tear(content, offset, data, rng):
    """All of a write, nothing of it, some of its sectors, or only the size it gives the file."""
    way = rng.choice(("all", "nothing", "first", "some", "size"))
    end = offset + len(data)
    if way == "nothing":
        return
    if way == "all":
        _apply(content, offset, data)
        return
    if len(content) < end:
        filling = rng.choice((0, REST))
        content.extend(bytes([filling]) * (end - len(content)))
    if way == "size":
        return
    edges = [offset, *range(offset - offset % SECTOR + SECTOR, end, SECTOR), end]
    sectors = list(itertools.pairwise(edges))
    kept = (
        sectors[: rng.randint(0, len(sectors))]
        if way == "first"
        else [sector for sector in sectors if rng.random() < 0.5]
    )
    for begin, stop in kept:
        content[begin:stop] = data[begin - offset : stop - offset]


@dataclass(eq=False)
class Directory:
    """Names, and the changes of names that no fsync made durable: (call number, changes)."""

    current: dict = field(default_factory=dict)
    durable: dict = field(default_factory=dict)
    pending: list = field(default_factory=list)

    def change(self, number, names):
        _rename(self.current, names)
        self.pending.append((number, names))

    def sync(self, before):
        for step in self.pending:
            if step[0] < before:
                _rename(self.durable, step[1])
        self.pending = [step for step in self.pending if step[0] >= before]

    def survivor(self, rng, mood):
        if not self.pending or mood == "none":
            return self.durable
        if mood == "all":
            return self.current
        names = dict(self.durable)
        kept = self.pending
        if mood == "prefix":
            kept = kept[: rng.randint(0, len(kept))]
        else:
            kept = [step for step in kept if rng.random() < 0.5]
        for _, change in kept:
            _rename(names, change)
        return names


def _rename(names, changes):
    for name, node in changes.items():
        names.pop(name, None)
        if node is not None:
            names[name] = node


MOODS = ("none", "all", "prefix", "any", "any")


class Disk:
    """Everything below ``root``, in memory, as ``calls`` change it one by one."""

    def __init__(self, root, calls):
        self.root = Path(root)
        self.tree = Directory()
        self.tree.change(0, {"store": Directory()})
        self.tree.sync(1)
        self.number = 0  # of calls played
        self._calls = calls
        self._open = {}  # descriptor -> [node, offset, appends]
        self._root = str(root).encode()

    def play(self):
        """Yields after each call that changed something here (not at the store)."""
        for self.number, call in enumerate(self._calls, 1):  # noqa: B020
            handler = getattr(self, f"_{call.name}")
            if handler(call):
                yield self.number

    def __len__(self):
        return len(self._calls)

    # the calls; True when the local disk may look different to a power cut from now on

    def _place(self, path):
        """(directory, name, whether it is local); None when it is not ours."""
        if not path.startswith(self._root + b"/"):
            return None
        parts = path[len(self._root) + 1 :].decode().split("/")
        node = self.tree
        for part in parts[:-1]:
            node = node.current[part]
        return node, parts[-1], parts[0] not in ("store", "said")

    def _place_below(self, call):
        """The same for a name in a directory that is open."""
        entry = self._open.get(call.numbers[0]) if "AT_FDCWD" not in call.flags else None
        if entry is None or not isinstance(entry[0], Directory):
            return None
        local = entry[0] is not self.tree.current.get("store")
        return entry[0], call.texts[0].decode(), local

    def _openat(self, call):
        self._open.pop(call.result, None)
        path = call.texts[0]
        if path == self._root:
            self._open[call.result] = [self.tree, 0, False]
            return False
        found = self._place(path) if path.startswith(b"/") else self._place_below(call)
        if found is None:
            return False
        parent, name, local = found
        node, made = parent.current.get(name), False
        if node is None:  # or another thread creates it and has not returned yet
            node, made = Directory() if "O_DIRECTORY" in call.flags else File(), True
            parent.change(self.number, {name: node})
        if "O_TRUNC" in call.flags and isinstance(node, File):
            node.change(self.number, 0, None)
            made = True
        self._open[call.result] = [node, 0, "O_APPEND" in call.flags]
        return made and local and name != "lock"

    def _write(self, call):
        return self._put(call, None)

    def _pwrite64(self, call):
        return self._put(call, call.numbers[-1])

    def _put(self, call, offset):
        entry = self._open.get(call.numbers[0])
        if entry is None:
            return False
        node, position, appends = entry
        data = call.texts[0][: call.result]
        if offset is None:
            offset = len(node.current) if appends else position
            entry[1] = offset + len(data)
        node.change(self.number, offset, data)
        return True

    def _ftruncate(self, call):
        if (entry := self._open.get(call.numbers[0])) is None:
            return False
        entry[0].change(self.number, call.numbers[1], None)
        return True

    def _fsync(self, call):
        if (entry := self._open.get(call.numbers[0])) is None:
            return False
        entry[0].sync(call.began + 1)
        return True

    _fdatasync = _fsync

    def _rename(self, call):
        old, new = (self._place(path) for path in call.texts)
        if old is None:
            return False
        node = old[0].current[old[1]]
        if old[0] is new[0]:
            old[0].change(self.number, {old[1]: None, new[1]: node})
        else:  # only the store does so
            assert not new[2]
            old[0].change(self.number, {old[1]: None})
            new[0].change(self.number, {new[1]: node})
        return new[2]

    def _link(self, call):
        old, new = (self._place(path) for path in call.texts)
        new[0].change(self.number, {new[1]: old[0].current[old[1]]})
        return new[2]

    def _unlink(self, call):
        found = self._place(call.texts[0])
        if found is None:
            return False
        found[0].change(self.number, {found[1]: None})
        return found[2]

    _rmdir = _unlink

    def _unlinkat(self, call):
        """shutil.rmtree of the store: by the descriptor of the directory."""
        entry = self._open.get(call.numbers[0])
        if entry is not None:
            entry[0].change(self.number, {call.texts[0].decode(): None})
        return False

    def _mkdir(self, call):
        found = self._place(call.texts[0])
        if found is None or found[1] in found[0].current:
            return False
        found[0].change(self.number, {found[1]: Directory()})
        return found[2]

    def _fallocate(self, call):
        assert call.numbers[0] not in self._open, "not expected here"

    def _close(self, call):
        self._open.pop(call.numbers[0], None)

    _pwritev = _writev = _dup = _dup2 = _dup3 = _renameat = _renameat2 = _fallocate
    _linkat = _mkdirat = _fallocate

    # the power cut

    def cut(self, rng, names=("cache", "app.db", "app.db-wal")):
        """{path: bytes, or None for a directory} below ``names`` after a power cut now."""
        mood = rng.choice(MOODS)
        found = {}
        top = self.tree.survivor(rng, mood)
        for name in names:
            if name in top:
                self._survive(Path(name), top[name], rng, mood, found)
        return found

    def _survive(self, path, node, rng, mood, found):
        if isinstance(node, File):
            found[str(path)] = node.survivor(rng, mood)
            return
        found[str(path)] = None
        for name, child in sorted(node.survivor(rng, mood).items()):
            if not name.endswith("-shm"):  # memory
                self._survive(path / name, child, rng, mood, found)

    def store(self):
        """{path: bytes or None} of the store, all of it."""
        found = {}
        self._now(Path("store"), self.tree.current.get("store", Directory()), found)
        return found

    def _now(self, path, node, found):
        found[str(path)] = bytes(node.current) if isinstance(node, File) else None
        if isinstance(node, Directory):
            for name, child in sorted(node.current.items()):
                self._now(path / name, child, found)

    def everything(self):
        """As a process sees it, without any power cut."""
        found = {}
        for name, node in self.tree.current.items():
            self._now(Path(name), node, found)
        return found

    def reported(self):
        """[(txid, rows)] that the replicator has reported durable so far."""
        said = self.tree.current.get("said")
        lines = bytes(said.current).decode().splitlines() if said is not None else []
        return [tuple(map(int, line.split()[1:])) for line in lines]


def digest(*trees):
    """A digest that distinguishes states."""
    found = hashlib.blake2b(digest_size=16)
    for tree in trees:
        for path, content in tree.items():
            found.update(path.encode() + (b"/" if content is None else b"=%d:" % len(content)))
            found.update(content or b"")
    return found.digest()


def write_tree(root, *trees):
    for tree in trees:
        for path, content in tree.items():
            target = root / path
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.write_bytes(content)
