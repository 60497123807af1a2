"""The address of a store: the scheme, the bucket, the prefix, and the way to the endpoint.

Owns the URLs ``s3://bucket/prefix`` and ``file:///dir``, and the list of schemes. Refuses
credentials: an address never holds or shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from replicator.errors import ConfigError
from replicator.format.integrity import Integrity

Checksums: TypeAlias = Literal["when_required", "when_supported"]

SCHEMES = {
    "s3": "replicator.store.s3",
    "file": "replicator.store.directory",
}
"""Scheme: the module whose ``open_address(address, pool)`` opens such a store."""

_ADDRESS_HINT = "write s3://bucket/prefix or file:///dir"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store and a prefix in it: everything :func:`.open_store` needs except credentials.

    ``s3://bucket/prefix`` names a bucket and a prefix. ``file:///dir`` names a directory that
    serves as the bucket; its prefix is a separate argument.
    """

    scheme: str  # a key of SCHEMES
    bucket: str = ""
    path: str = ""  # absolute directory, "file" only
    prefix: str = ""  # without slashes at the ends
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    checksums: Checksums = "when_required"
    integrity: Integrity | None = field(default=None, repr=False)  # seals the objects

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", self.prefix.strip("/"))
        if not (self.path if self.scheme == "file" else self.bucket):
            raise ConfigError("no bucket is named", setting="bucket", hint=_ADDRESS_HINT)
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url)

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        checksums: Checksums = "when_required",
    ) -> StoreAddress:
        """The address in a URL; ``ConfigError`` for any other text. ``prefix`` is for a URL
        without one."""
        scheme, colon, rest = url.partition("://")
        if not colon or scheme not in SCHEMES:
            known = " nor ".join(f"{scheme}://…" for scheme in SCHEMES)
            raise ConfigError(f"the address is neither {known}", setting="url", hint=_ADDRESS_HINT)
        if scheme == "file":
            return cls(scheme, path=_file_path(rest), prefix=prefix)
        bucket, _, own = rest.partition("/")
        _refuse_credentials(bucket, "url")
        return cls(
            scheme,
            bucket=bucket,
            prefix=own.strip("/") or prefix,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            checksums=checksums,
        )

    @property
    def url(self) -> str:
        """The address as a URL, without credentials."""
        if self.scheme == "file":
            return "/".join(filter(None, ("file://" + quote(self.path.rstrip("/")), self.prefix)))
        return "/".join(filter(None, (f"{self.scheme}:/", self.bucket, self.prefix)))


def _refuse_credentials(authority: str, setting: str) -> None:
    if "@" in authority:
        raise ConfigError(
            "an address must not hold credentials",
            setting=setting,
            hint="use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
        )


def _check_endpoint(endpoint_url: str) -> None:
    parts = urlsplit(endpoint_url)
    _refuse_credentials(parts.netloc, "endpoint_url")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            "the endpoint is not an http:// or https:// address",
            setting="endpoint_url",
            hint="write --endpoint-url https://host:port",
        )


def _file_path(rest: str) -> str:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise ConfigError(
            "a file:// address must name an absolute directory",
            setting="url",
            hint="write file:///dir, with three slashes",
        )
    return "/" + unquote(path).strip("/")
