"""What an S3 error answer means to us: a pure function of its code and HTTP status.

Source: Amazon S3 API reference, "Error responses". Owns the table; asks nobody anything.
"""

from __future__ import annotations

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    ConfigError,
    ObjectExists,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
    StoreUnsafe,
    UploadMissing,
)

# Codes that say "these credentials", as opposed to "this action". A client made anew may
# find rotated ones.
STALE_IDENTITY = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "TokenRefreshRequired",
})
_CLOCK_HINT = "set the clock of this machine; the store compares it with its own"

_BY_CODE: dict[str, type[ReplicatorError]] = {
    **dict.fromkeys(STALE_IDENTITY, AccessDenied),
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
    401: AccessDenied, 403: AccessDenied, 408: StoreUnavailable, 409: StoreUnavailable,
    412: ObjectExists, 429: StoreUnavailable, 501: StoreUnsafe,
}


def refusal(code: str, status: int, message: str, what: str) -> ReplicatorError:
    """The error for an S3 answer to ``what`` ("put wal/1 …").

    A 404 without one of S3's own codes is not taken for a missing object: a proxy or a web
    server that is not S3 answers like that too.
    """
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or _by_class(status)
    told = f"{code}: {message}" if message else code
    hint = _CLOCK_HINT if code == "RequestTimeTooSkewed" else _HINTS.get(kind, "")
    return kind(f"{what}: the store answered {status} {told}", hint=hint)


def _by_class(status: int) -> type[ReplicatorError]:
    if status >= 500:
        return StoreUnavailable
    return ConfigError if status == 404 or status < 400 else ReplicatorError


_HINTS: dict[type[ReplicatorError], str] = {
    ConfigError: "check --endpoint-url and --region; this does not look like the right S3 store",
    StoreUnsafe: "the store lacks conditional writes; run replicator doctor",
}
