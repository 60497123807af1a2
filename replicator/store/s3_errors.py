"""Interprets the answers of S3: pure functions of status, code and fields.

Owns the table of errors, and the check that an answer has the fields that S3 always sends. Refuses
to guess a missing field, and any I/O.
Source: Amazon S3 API reference, "Error responses" and the pages of the single actions.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

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
from replicator.store.base import ObjectInfo, Part, Parts, StoreRequest

# Codes about the credentials, as opposed to the action. A new client may find rotated ones.
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
LARGEST = 1 << 50  # bytes; no S3 store takes objects of a petabyte
PARTIAL = 206  # the status of an answer with a range
_NOT_UNDERSTOOD = (ConfigError, ReplicatorError, StoreUnsafe)
_CLOCK_HINT = "set the clock of this machine; the store compares it with its own"

# Codes of a request that reached the wrong region or the wrong address.
_MISDIRECTED = frozenset(
    {
        "AuthorizationHeaderMalformed",  # signed for another region
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)

_BY_CODE: dict[str, type[ReplicatorError]] = {
    **dict.fromkeys(STALE_IDENTITY, AccessDenied),
    "BadDigest": StoreUnavailable,  # the body was damaged in transit
    "BucketAlreadyExists": ObjectExists,
    "BucketAlreadyOwnedByYou": ObjectExists,
    "ConditionalRequestConflict": StoreUnavailable,  # 409: a race is still undecided
    "IncompleteBody": StoreUnavailable,
    "InvalidPart": UploadMissing,  # a part is gone; the upload must begin again
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


def refusal(code: str, status: int, message: str, request: StoreRequest) -> ReplicatorError:
    """The error for S3's answer to ``request``.

    A 404 without one of S3's own codes is no missing object: a proxy, or a web server that is not
    S3, answers like that too.
    """
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or _by_class(status)
    details = ": ".join(filter(None, ("" if code == str(status) else code, message)))
    hint = _CLOCK_HINT if code == "RequestTimeTooSkewed" else _HINTS.get(kind, "")
    return request.error(kind, f"the store answered {status} {details}", hint=hint)


def misdirected(
    answer: Mapping[str, Any], code: str, status: int, request: StoreRequest
) -> ReplicatorError | None:
    """The error for an answer that sends ``request`` to another region or address; None for any
    other answer. Source: Amazon S3 user guide, "Request redirection"."""
    if code not in _MISDIRECTED and not 300 <= status < 400:
        return None
    details = answer.get("Error", {})
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    message = str(details.get("Message", ""))
    expected = re.search(r"expecting '([\w-]+)'", message)
    region = (
        details.get("Region")
        or headers.get("x-amz-bucket-region")
        or (expected[1] if expected else "")
    )
    if region or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        where = f"in the region {region}" if region else "in another region"
        hint = f"set --region {region}" if region else "set --region to that of the bucket"
        text = f"the bucket is {where}, and the request went elsewhere ({code})"
        return request.error(ConfigError, text, hint=hint, code="wrong_region")
    target = _address(headers.get("location", ""), str(details.get("Endpoint", "")), request.bucket)
    text = f"the store answered {status}: it redirects to {target or 'an address it does not name'}"
    hint = (
        f"set --endpoint-url {target}, if that is the S3 store" if target else _HINTS[ConfigError]
    )
    return request.error(ConfigError, text, hint=hint, code="redirected")


def _address(location: str, endpoint: str, bucket: str) -> str:
    """The endpoint behind a redirect, without the bucket and the key."""
    try:
        parts = urlsplit(location or (f"https://{endpoint}" if endpoint else ""))
    except ValueError:
        return ""
    host = parts.netloc.removeprefix(f"{bucket}.")
    return f"{parts.scheme}://{host}" if host else ""


def copy_refusal(error: ReplicatorError, key: str) -> ReplicatorError:
    """The error for the copy of a part into ``key``.

    A failed precondition is about the source. Any other refusal of a request that S3 accepts means
    that this store does not support copies.
    """
    if isinstance(error, ObjectExists):
        return ObjectMissing(str(error), key=key)
    return CopyRefused(str(error), key=key) if type(error) in _NOT_UNDERSTOOD else error


def _by_class(status: int) -> type[ReplicatorError]:
    if status >= 500:
        return StoreUnavailable
    return ConfigError if status == 404 or status < 400 else ReplicatorError


_HINTS: dict[type[ReplicatorError], str] = {
    ConfigError: "check --endpoint-url and --region; this does not look like the right S3 store",
    StoreUnsafe: "the store lacks conditional writes; run replicator doctor",
}


# ----------------------------------------------------------------------- fields


def expect(answer: Any, name: str, request: StoreRequest) -> Any:
    """A field that every S3 store sends; the 200 of a proxy lacks it."""
    value = answer.get(name)
    if value is None or value == "":
        raise request.error(
            StoreUnavailable,
            f"the answer has no {name}",
            hint="is the endpoint an S3 store?",
            code="incomplete_answer",
        )
    return value


def moment(text: Any) -> dt.datetime | None:
    """A time in S3's formats, RFC 3339 in a listing, RFC 9110 in a head; None for any other text.

    Botocore's own parser knows many formats, and takes three quarters of the time of a listing.
    """
    try:
        return (dt.datetime.fromisoformat if text[4:5] == "-" else parsedate_to_datetime)(text)
    except (TypeError, ValueError):
        return None


def milliseconds(answer: Any, request: StoreRequest) -> int:
    """The time of the object's last modification, in milliseconds since the epoch."""
    moment: dt.datetime = expect(answer, "LastModified", request)
    return int(moment.timestamp() * 1000)


def listed_object(item: Any, request: StoreRequest) -> ObjectInfo:
    """One object of a listing."""
    size = expect(item, "Size", request)
    if not 0 <= size <= LARGEST:
        raise request.error(
            StoreUnavailable, f"the store lists a size of {size} bytes", code="incomplete_answer"
        )
    return ObjectInfo(expect(item, "Key", request), size, milliseconds(item, request))


def listed_part(item: Any, request: StoreRequest) -> Part:
    """One part of an unfinished upload."""
    return Part(*(expect(item, name, request) for name in ("PartNumber", "Size", "ETag")))


def unambiguous(parts: Parts) -> Parts:
    """Parts by number. SeaweedFS keeps both of two bodies put under one number; such a part counts
    as missing."""
    distinct = set(parts)
    bodies = Counter(part.number for part in distinct)
    return sorted(
        (part for part in distinct if bodies[part.number] == 1), key=lambda part: part.number
    )


def range_header(start: int, length: int | None) -> dict[str, str]:
    """The parameter for these bytes; none for the whole object."""
    if start < 0:
        return {"Range": f"bytes={start}"}
    if start == 0 and length is None:
        return {}
    last = "" if length is None else str(start + length - 1)
    return {"Range": f"bytes={start}-{last}"}


def checked_range(
    request: StoreRequest, answer: Any, data: bytes, start: int, length: int | None
) -> bytes:
    """``data`` cut to the wanted range, after the check that it covers the range. (Botocore checks
    that the body has its declared length.)"""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.get("ContentRange", ""))
    partial = answer["ResponseMetadata"]["HTTPStatusCode"] == PARTIAL
    held, total = (int(found[1]), int(found[3])) if found else (0, len(data))
    first = start if start >= 0 else max(0, total + start)
    last = total if length is None else min(first + length, total)
    if (partial and not found) or held > first or held + len(data) < last:
        raise request.error(
            StoreUnavailable, "the answer is not the requested range", code="incomplete_answer"
        )
    return data[first - held : last - held] if held != first or len(data) != last - first else data
