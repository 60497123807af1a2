"""Counts calls of a function without a change of it."""

import contextlib
import sys
import threading


@contextlib.contextmanager
def counted_calls(function):
    """A list that grows with each call of ``function`` in any thread started or running here."""
    code, calls = function.__code__, []

    def profile(frame, event, _):
        if event == "call" and frame.f_code is code:
            calls.append(code.co_name)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
