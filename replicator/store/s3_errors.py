"""What an S3 answer means to us: pure functions of its status, code and fields.

Owns the table of errors and the proof that an answer says what S3 always says. Refuses to
guess what it leaves out, and asks nobody anything.
Source: Amazon S3 API reference, "Error responses" and the pages of the single actions.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import Any

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    ConfigError,
    CopyRefused,
    ObjectExists,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
    StoreUnsafe,
    UploadMissing,
)
from replicator.store.base import ObjectInfo, Part, Parts

# Codes that say "these credentials", as opposed to "this action". A client made anew may
# find rotated ones.
STALE_IDENTITY = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
PARTIAL = 206  # the status of an answer that holds a range
_NOT_UNDERSTOOD = (ConfigError, ReplicatorError, StoreUnsafe)
_CLOCK_HINT = "set the clock of this machine; the store compares it with its own"

_BY_CODE: dict[str, type[ReplicatorError]] = {
    **dict.fromkeys(STALE_IDENTITY, AccessDenied),
    "AuthorizationHeaderMalformed": ConfigError,  # signed for another region
    "BadDigest": StoreUnavailable,  # the body was damaged on its way
    "BucketAlreadyExists": ObjectExists,
    "BucketAlreadyOwnedByYou": ObjectExists,
    "ConditionalRequestConflict": StoreUnavailable,  # 409: a race is still being decided
    "IncompleteBody": StoreUnavailable,
    "InvalidPart": UploadMissing,  # a part is gone; the upload has to begin again
    "NoSuchBucket": BucketMissing,
    "NoSuchKey": ObjectMissing,
    "NoSuchUpload": UploadMissing,
    "NotImplemented": StoreUnsafe,
    "OperationAborted": StoreUnavailable,
    "PreconditionFailed": ObjectExists,
    "RequestTimeout": StoreUnavailable,
    "SlowDown": StoreUnavailable,
    "XAmzContentSHA256Mismatch": StoreUnavailable,
}
_BY_STATUS: dict[int, type[ReplicatorError]] = {
    401: AccessDenied,
    403: AccessDenied,
    408: StoreUnavailable,
    409: StoreUnavailable,
    412: ObjectExists,
    429: StoreUnavailable,
    501: StoreUnsafe,
}


def refusal(code: str, status: int, message: str, what: str) -> ReplicatorError:
    """The error for an S3 answer to ``what`` ("put wal/1 …").

    A 404 without one of S3's own codes is not taken for a missing object: a proxy or a web
    server that is not S3 answers like that too.
    """
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or _by_class(status)
    told = ": ".join(filter(None, ("" if code == str(status) else code, message)))
    hint = _CLOCK_HINT if code == "RequestTimeTooSkewed" else _HINTS.get(kind, "")
    return kind(f"{what}: the store answered {status} {told}", hint=hint)


def copy_refusal(error: ReplicatorError) -> ReplicatorError:
    """The same for the copy of a part: its only precondition is about the source, and whatever
    else is wrong with a request that S3 understands, this store does not."""
    if isinstance(error, ObjectExists):
        return ObjectMissing(str(error))
    return CopyRefused(str(error)) if type(error) in _NOT_UNDERSTOOD else error


def _by_class(status: int) -> type[ReplicatorError]:
    if status >= 500:
        return StoreUnavailable
    return ConfigError if status == 404 or status < 400 else ReplicatorError


_HINTS: dict[type[ReplicatorError], str] = {
    ConfigError: "check --endpoint-url and --region; this does not look like the right S3 store",
    StoreUnsafe: "the store lacks conditional writes; run replicator doctor",
}


# ----------------------------------------------------------------------- fields


def expect(answer: Any, name: str, what: str) -> Any:
    """What every S3 store says; a proxy's friendly 200 does not."""
    value = answer.get(name)
    if value is None or value == "":
        raise StoreUnavailable(
            f"{what}: the answer has no {name}", hint="is the endpoint an S3 store?"
        )
    return value


def moment(text: Any) -> dt.datetime | None:
    """A time as S3 writes it: RFC 3339 in a listing, RFC 9110 in a head; None in any other form.
    Botocore's own reader knows them all, and takes three quarters of the time of a listing."""
    try:
        return (dt.datetime.fromisoformat if text[4:5] == "-" else parsedate_to_datetime)(text)
    except (TypeError, ValueError):
        return None


def milliseconds(answer: Any, what: str) -> int:
    """When the object was last modified, since the epoch."""
    moment: dt.datetime = expect(answer, "LastModified", what)
    return int(moment.timestamp() * 1000)


def listed_object(item: Any, what: str) -> ObjectInfo:
    """One object of a listing."""
    return ObjectInfo(
        expect(item, "Key", what), expect(item, "Size", what), milliseconds(item, what)
    )


def listed_part(item: Any, what: str) -> Part:
    """One part of an unfinished upload."""
    return Part(*(expect(item, name, what) for name in ("PartNumber", "Size", "ETag")))


def unambiguous(parts: Parts) -> Parts:
    """Parts by number. SeaweedFS keeps both of two bodies put under one number; such a part
    is as good as missing."""
    distinct = set(parts)
    bodies = Counter(part.number for part in distinct)
    return sorted(
        (part for part in distinct if bodies[part.number] == 1), key=lambda part: part.number
    )


def range_header(start: int, length: int | None) -> dict[str, str]:
    """The parameter that asks for these bytes; none for all of them."""
    if start < 0:
        return {"Range": f"bytes={start}"}
    if start == 0 and length is None:
        return {}
    last = "" if length is None else str(start + length - 1)
    return {"Range": f"bytes={start}-{last}"}


def checked_range(what: str, answer: Any, data: bytes, start: int, length: int | None) -> bytes:
    """``data`` cut to what was asked for, after proving that it covers that. (That a body is
    as long as announced, botocore proves.)"""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.get("ContentRange", ""))
    partial = answer["ResponseMetadata"]["HTTPStatusCode"] == PARTIAL
    held, total = (int(found[1]), int(found[3])) if found else (0, len(data))
    first = start if start >= 0 else max(0, total + start)
    last = total if length is None else min(first + length, total)
    if (partial and not found) or held > first or held + len(data) < last:
        raise StoreUnavailable(f"{what}: the answer is not the range asked for")
    return data[first - held : last - held] if held != first or len(data) != last - first else data
