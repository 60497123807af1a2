"""Runs mutated inputs through targets, and keeps those that a target cannot bear."""

import hashlib
import random
import traceback
from pathlib import Path

from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, errors_of, seeds

CORPUS = Path(__file__).parent / "corpus"


LONGEST_KEPT = 16 << 10  # bytes of an input that further mutations begin with
MOST_LEARNED = 200  # of these inputs; their memory is not the target's


class Defect(Exception):
    """A target raised an error that it does not document; the input is in the corpus."""


class Fuzzer:
    """The inputs of one target, in an order that ``seed`` determines."""

    def __init__(self, name, seed, corpus=CORPUS):
        self.name = name
        self.directory = corpus / name
        self._target = TARGETS[name]
        self._allowed = errors_of(name)
        self._rng = random.Random(f"{name} {seed}")
        self._pool = [*seeds(name), *self.kept()]
        self._seeds = len(self._pool)
        self._seen = set()
        self.inputs = 0

    def kept(self):
        """The inputs in the corpus."""
        return [path.read_bytes() for path in sorted(self.directory.glob("*.bin"))]

    def replay(self):
        """Every seed and every kept input, unchanged."""
        for data in self._pool[: self._seeds]:
            self._try(data)

    def run(self, count):
        """The next ``count`` mutated inputs."""
        for _ in range(count):
            data = mutated(self._rng.choice(self._pool), self._pool, self._rng)
            self._learn(self._try(data), data)

    def _try(self, data):
        """The outcome; ``Defect`` if it is not documented."""
        self.inputs += 1
        try:
            self._target(data)
        except self._allowed as error:
            return type(error).__name__, getattr(error, "code", ""), _place(error)
        except (Exception, MemoryError) as error:
            path = self._keep(data)
            raise Defect(f"{self.name}: {type(error).__name__}: {error}; see {path}") from error
        return "", "", 0

    def _learn(self, outcome, data):
        """An input with a new outcome becomes a start of further mutations, in place of an old
        one if there are many."""
        if outcome in self._seen or len(data) > LONGEST_KEPT:
            return
        self._seen.add(outcome)
        if len(self._pool) < self._seeds + MOST_LEARNED:
            self._pool.append(data)
        else:
            self._pool[self._rng.randrange(self._seeds, len(self._pool))] = data

    def _keep(self, data):
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
        path.write_bytes(data)
        return path


def _place(error):
    """The line that raised the error, and the lines on the way: a cheap stand-in for coverage."""
    return tuple(line for _, line in traceback.walk_tb(error.__traceback__))[-3:]
