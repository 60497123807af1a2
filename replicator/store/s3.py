"""The store on S3 and its likes, the only user of botocore (the core of boto3).

Owns the client, its timeouts and the translation of every failure. Refuses to retry (that is
:mod:`.retry`) and to believe an answer that lacks what S3 always says. Credentials, profiles,
roles, session tokens, proxies and CA bundles are botocore's business alone.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections.abc import Iterator
from typing import Any

import urllib3.exceptions
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
    SSOError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.handlers import add_expect_header
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from botocore.session import Session
from botocore.utils import parse_timestamp

from replicator.errors import (
    AccessDenied,
    ConfigError,
    CopyRefused,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
    UploadMissing,
)
from replicator.store.address import Checksums, StoreAddress
from replicator.store.base import (
    Folders,
    Metadata,
    ObjectInfo,
    Part,
    Parts,
    Store,
    Upload,
    Uploads,
)
from replicator.store.s3_errors import (
    STALE_IDENTITY,
    checked_range,
    copy_refusal,
    expect,
    listed_object,
    listed_part,
    milliseconds,
    moment,
    range_header,
    refusal,
    unambiguous,
)

CONNECT_TIMEOUT = 5.0
# Seconds between two bytes of an answer. The loser of a contended conditional PUT waits up to
# 3 s on SeaweedFS; completing a large upload takes AWS longer, but it sends blanks meanwhile.
READ_TIMEOUT = 20.0
# Larger bodies ask for "100 Continue" first, so that a refusal is read instead of a reset.
# Smaller ones do not: waiting for it costs a seventh of a small PUT's CPU, and a second where
# the server hangs.
EXPECT_BYTES = 1 << 20
_FAILURES = (
    BotoCoreError,
    ClientError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)
_PASSING = (
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoConnection,
    ResponseStreamingError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    OSError,
)
# What a listing is gone on with; the answer's field has "Next" before it.
_MARKERS = {
    "list_objects_v2": ("ContinuationToken",),
    "list_parts": ("PartNumberMarker",),
    "list_multipart_uploads": ("KeyMarker", "UploadIdMarker"),
}
_IDENTITY = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, SSOError)


class _LeanLoader(Loader):  # type: ignore[misc]
    """Knows S3 and what credentials need, instead of searching 400 directories of models.

    Saves 50 ms and 7 MiB at start-up. The table of endpoints (1.2 MB) is left out when the
    endpoint is given.
    """

    def __init__(self, *, endpoints: bool) -> None:
        super().__init__()
        self._endpoints = endpoints

    def list_available_services(self, type_name: str) -> list[str]:
        return ["s3", "signin", "sso", "sso-oidc", "sts"]

    def load_data_with_path(self, name: str) -> Any:
        if name == "endpoints" and not self._endpoints:
            return {"version": 3, "partitions": []}, ""
        return super().load_data_with_path(name)


class S3Store(Store):
    """One bucket. ``pool`` is the number of threads that may speak to it at once; the
    timeouts are seconds. ``credentials`` (access key, secret key) stand in for botocore's own
    search, for servers that the demo and the tests start themselves."""

    def __init__(
        self,
        bucket: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        checksums: Checksums = "when_required",
        pool: int = 16,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        self.url = f"s3://{bucket}"
        self._bucket = bucket
        self._endpoint_url = endpoint_url
        self._region = region
        self._profile = profile
        self._credentials = credentials
        self._loader = _LeanLoader(endpoints=endpoint_url is None)
        self._settings: dict[str, Any] = {
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            "max_pool_connections": pool,
            "parameter_validation": False,  # with the next two lines 20 % of a small PUT's CPU
            "request_checksum_calculation": checksums,
            "response_checksum_validation": checksums,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "tcp_keepalive": True,
            "user_agent": "replicator",
        }
        self._lock = threading.Lock()
        self._client: Any = None
        self._keeps_versions = False

    # ------------------------------------------------------------------ the client

    def _api(self) -> Any:
        """The shared client. Without credentials none is kept: they may turn up later."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        session = Session(profile=self._profile)
        session.register_component("data_loader", self._loader)
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=lambda value: moment(value) or parse_timestamp(value)
        )
        if self._credentials is not None:
            session.set_credentials(*self._credentials)
        if session.get_credentials() is None:
            raise NoCredentialsError
        region = self._region or session.get_config_variable("region")
        special = (
            {}
            if self._endpoint_url is None
            else {
                "addressing_style": self._chosen_style(session) or "path",
                "us_east_1_regional_endpoint": "regional",  # else it wants the table of endpoints
            }
        )
        client = session.create_client(
            "s3",
            endpoint_url=self._endpoint_url,
            config=Config(**self._settings, s3=special),
            region_name=region or ("us-east-1" if self._endpoint_url else None),
        )
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register("before-call.s3", _expect_continue)
        client.meta.events.register("before-call.s3.HeadBucket", _no_region)
        return client

    @staticmethod
    def _chosen_style(session: Session) -> str | None:
        """The addressing style of the user's own profile, which goes before ours."""
        return (session.get_scoped_config().get("s3") or {}).get("addressing_style")

    def _call(self, operation: str, key: str = "", **params: Any) -> Any:
        """One request. Raises only errors of the project."""
        try:
            return getattr(self._api(), operation)(Bucket=self._bucket, **params)
        except _FAILURES as error:
            raise self._translated(error, f"{operation} {key}".rstrip()) from error

    def _translated(self, error: Exception, what: str) -> ReplicatorError:
        if isinstance(error, ClientError):
            told = error.response.get("Error", {})
            code = str(told.get("Code", ""))
            if code in STALE_IDENTITY:
                self._forget_client()
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            return refusal(code, status, str(told.get("Message", "")), what)
        if isinstance(error, _IDENTITY):
            return AccessDenied(f"{what}: no usable credentials: {error}")
        if isinstance(error, SSLError):
            return StoreUnavailable(
                f"{what}: {error}", hint="check the certificate, or set AWS_CA_BUNDLE"
            )
        if isinstance(error, _PASSING):
            return StoreUnavailable(f"{what}: {error}")
        return ConfigError(f"{what}: {error}")

    def _forget_client(self) -> None:
        """Make the next call read the credentials again; they may have been rotated."""
        with self._lock:
            self._client = None

    def create_bucket(self) -> None:
        """Create the bucket; for the demo and for tests."""
        self._call("create_bucket")

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # ------------------------------------------------------------------ objects

    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        answer = self._call(
            "put_object",
            key,
            Key=key,
            Body=body,
            ContentMD5=_md5(body),
            Metadata=dict(metadata or {}),
            **_condition(if_absent),
        )
        expect(answer, "ETag", f"put {key}")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            self.head(key)
            return b""
        wanted = range_header(start, length)
        try:
            answer = self._api().get_object(Bucket=self._bucket, Key=key, **wanted)
            with answer["Body"] as body:
                data: bytes = body.read()
        except _FAILURES as error:
            if _code(error) == "InvalidRange":  # begins behind the end, or the object is empty
                return b""
            raise self._translated(error, f"get {key}") from error
        expect(answer, "LastModified", f"get {key}")
        return checked_range(f"get {key}", answer, data, start, length)

    def head(self, key: str) -> ObjectInfo:
        try:
            answer = self._api().head_object(Bucket=self._bucket, Key=key)
        except _FAILURES as error:
            raise self._explained(error, key) from error
        what = f"head {key}"
        return ObjectInfo(
            key,
            expect(answer, "ContentLength", what),
            milliseconds(answer, what),
            answer.get("Metadata", {}),
            answer.get("ETag", ""),
        )

    def _explained(self, error: Exception, key: str) -> ReplicatorError:
        """The reason of a failed HEAD. Its answer has no body: a missing bucket, a missing
        key and an expired token look alike, so the same is asked again with a GET."""
        status = _status(error)
        if not 400 <= status < 500 or status == 429:
            return self._translated(error, f"head {key}")
        try:
            self.get(key, 0, 1)
        except ReplicatorError as reason:
            return reason
        return StoreUnavailable(f"head {key}: the store answered {status}, then otherwise")

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        what = f"list {prefix}"
        for page in self._pages("list_objects_v2", what, Prefix=prefix, StartAfter=start_after):
            for item in page.get("Contents", ()):
                yield listed_object(item, what)

    def folders(self, prefix: str) -> Folders:
        what = f"list {prefix}"
        pages = self._pages("list_objects_v2", what, Prefix=prefix, Delimiter="/")
        return sorted(
            {
                expect(item, "Prefix", what)
                for page in pages
                for item in page.get("CommonPrefixes", ())
            }
        )

    def _pages(self, operation: str, what: str, **params: Any) -> Iterator[Any]:
        """Every page of a listing. Without "IsTruncated" it is not an answer of S3, and an
        empty page must not pass for an empty store; nor may the same page come for ever."""
        seen: Folders = []
        while True:
            page = self._call(operation, what, **{k: v for k, v in params.items() if v})
            if not expect(page, "IsTruncated", what):
                yield page
                return
            following = {name: expect(page, f"Next{name}", what) for name in _MARKERS[operation]}
            if str(following) in seen:
                raise StoreUnavailable(f"{what}: the store gave the same page twice")
            seen.append(str(following))
            yield page
            params |= following

    def delete(self, key: str) -> None:
        try:
            answer = self._call("delete_object", key, Key=key)
        except ObjectMissing:
            return
        self._keeps_versions = self._keeps_versions or "VersionId" in answer

    @property
    def keeps_versions(self) -> bool:
        return self._keeps_versions

    # ------------------------------------------------------------------ multipart uploads

    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        answer = self._call("create_multipart_upload", key, Key=key, Metadata=dict(metadata or {}))
        return str(expect(answer, "UploadId", f"begin {key}"))

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        answer = self._call(
            "upload_part",
            key,
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            Body=body,
            ContentMD5=_md5(body),
        )
        return Part(number, len(body), str(expect(answer, "ETag", f"part {number} of {key}")))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        what = f"copy part {number} of {key}"
        try:
            answer = self._api().upload_part_copy(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                CopySourceRange=f"bytes={start}-{start + length - 1}",
                CopySourceIfMatch=source.etag,
            )
        except _FAILURES as error:
            raise copy_refusal(self._translated(error, what)) from error
        etag = answer.get("CopyPartResult", {}).get("ETag")
        if not etag:  # taken for an upload, perhaps: a part without any bytes
            raise CopyRefused(f"{what}: the answer tells of no copy")
        return Part(number, length, etag)

    def list_parts(self, key: str, upload_id: str) -> Parts:
        what = f"parts of {key}"
        pages = self._pages("list_parts", what, Key=key, UploadId=upload_id)
        return unambiguous(
            [listed_part(item, what) for page in pages for item in page.get("Parts", ())]
        )

    def complete_upload(
        self, key: str, upload_id: str, parts: Parts, *, if_absent: bool = True
    ) -> None:
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        answer = self._call(
            "complete_multipart_upload",
            key,
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": listed},
            **_condition(if_absent),
        )
        if not answer.get("ETag"):  # some servers leave it out; then only a HEAD proves it
            self._prove_size(key, sum(part.size for part in parts))

    def _prove_size(self, key: str, size: int) -> None:
        try:
            stored = self.head(key).size
        except ObjectMissing:
            stored = -1
        if stored != size:
            raise StoreUnavailable(f"complete {key}: the store acknowledged what it does not hold")

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            self._call("abort_multipart_upload", key, Key=key, UploadId=upload_id)
        except UploadMissing:
            return

    def list_uploads(self, prefix: str) -> Uploads:
        what = f"uploads below {prefix}"
        pages = self._pages("list_multipart_uploads", what, Prefix=prefix)
        uploads = [
            Upload(expect(item, "Key", what), expect(item, "UploadId", what))
            for page in pages
            for item in page.get("Uploads", ())
        ]
        return sorted(uploads, key=lambda upload: upload.key)  # SeaweedFS goes by id


def open_address(address: StoreAddress, pool: int) -> S3Store:
    """The bucket of an ``s3://`` address."""
    return S3Store(
        address.bucket,
        endpoint_url=address.endpoint_url,
        region=address.region,
        profile=address.profile,
        checksums=address.checksums,
        pool=pool,
    )


def _no_region(**_: object) -> tuple[AWSResponse, dict[str, Any]]:
    """Botocore asks so for the region of a bucket when a redirect names none, and again when
    the answer to that is a redirect, until the stack is full. S3 names it at once."""
    return AWSResponse("", 200, {}, None), {"ResponseMetadata": {"HTTPHeaders": {}}}


def _expect_continue(params: dict[str, Any], **_: object) -> None:
    """Botocore's own handler asks for it whatever the size; it sends bytes as a file."""
    body = params.get("body")  # from its end to its start it is this long; a view would copy it
    small = isinstance(body, io.BytesIO) and body.seek(0, 2) - body.seek(0) < EXPECT_BYTES
    if hasattr(body, "read") and not small:
        params["headers"]["Expect"] = "100-continue"


def _md5(body: bytes) -> str:
    """The digest every S3 store has always verified; not a matter of security."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _condition(if_absent: bool) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if if_absent else {}


def _code(error: Exception) -> str:
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
