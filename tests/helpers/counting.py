"""A store that forwards to another, counts its requests and lets a test change the results."""

import threading

from replicator.store.base import Store


class CountingStore(Store):
    """``calls`` lists (method, key). ``answer(method, key, result)`` may replace a result;
    ``before(method, key)`` may raise or block."""

    def __init__(self, inner, *, before=None, answer=None):
        self.inner = inner
        self.url = inner.url
        self.calls = []
        self.before = before or (lambda method, key: None)
        self.answer = answer or (lambda method, key, result: result)
        self._lock = threading.Lock()

    def count(self, method):
        return sum(1 for name, _ in self.calls if name == method)

    def _call(self, method, key, *args, **options):
        with self._lock:
            self.calls.append((method, key))
        self.before(method, key)
        return self.answer(method, key, getattr(self.inner, method)(key, *args, **options))

    def get(self, key, start=0, length=None):
        return self._call("get", key, start, length)

    def head(self, key):
        return self._call("head", key)

    def list(self, prefix, *, start_after=""):
        return self._call("list", prefix, start_after=start_after)

    def folders(self, prefix):
        return self._call("folders", prefix)

    def close(self):
        self.calls.append(("close", ""))

    def put(self, *args, **options):
        raise AssertionError("a restore must not write")

    delete = begin_upload = put_part = copy_part = list_parts = put
    complete_upload = abort_upload = list_uploads = put
