"""Everything a process and its threads write, as strace sees it, in the order of the effects."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

CALLS = (
    "openat",
    "write",
    "pwrite64",
    "pwritev",
    "writev",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "dup",
    "dup2",
    "dup3",
    "close",
)
LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))", re.DOTALL)
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class Call:
    """``began`` is the number of calls that had taken effect when this one began."""

    name: str
    texts: list[bytes]
    numbers: list[int]
    flags: str
    result: int
    began: int = 0


def record(script, place, *arguments):
    """The calls of a process that take effect, in the order in which they did."""
    trace = place.with_name(place.name + ".trace")
    done = subprocess.run(
        [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-xx",
            "-s",
            str(1 << 23),
            "-o",
            str(trace),
            "-e",
            f"trace={','.join(CALLS)}",
            sys.executable,
            str(script),
            str(place),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = []
    try:
        with trace.open() as lines:
            calls.extend(_calls(lines, calls))
    finally:
        trace.unlink()
    return calls


def _calls(lines, done):
    begun = {}
    for line in lines:
        match = LINE.match(line)
        if match is None:
            continue  # a signal, or the end of a thread
        thread, resumed, rest, name, text = match.groups()
        if name is not None and text.rstrip().endswith("<unfinished ...>"):
            if name == "close":  # its number may be used again before it returns
                yield Call(name, [], [int(text.split()[0])], "", 0)
            begun[thread] = text.rstrip().removesuffix("<unfinished ...>"), len(done)
            continue
        began = len(done)
        if resumed is not None:
            head, began = begun.pop(thread)
            name, text = resumed, head + rest
            if name == "close":
                continue
        call = _parse(name, text, began)
        if call is not None:
            yield call


def _parse(name, text, began):
    """None for a call that failed."""
    arguments, result = re.fullmatch(r"(.*)\) += (\S+).*", text, re.DOTALL).groups()
    if result.startswith(("-", "?")):
        return None
    texts = [bytes.fromhex(found.replace("\\x", "")) for found in STRING.findall(arguments)]
    plain = STRING.sub("", arguments)
    assert "..." not in plain, f"cut short: {name}({plain})"
    numbers = [int(found) for found in re.findall(r"(?<![\w.])-?\d+(?![\w.])", plain)]
    return Call(name, texts, numbers, plain, int(result), began)
