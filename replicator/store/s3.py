"""The store on S3 and compatible services; with :mod:`.s3_client` the only user of botocore.

Owns the requests and the translation of every failure. Refuses to retry (see :mod:`.retry`), and to
accept an answer without the fields that S3 always sends.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3.exceptions
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
from botocore.parsers import ResponseParserError

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
    StoreRequest,
    Upload,
    Uploads,
)
from replicator.store.s3_client import ClientSettings, S3Client
from replicator.store.s3_errors import (
    STALE_IDENTITY,
    checked_range,
    copy_refusal,
    expect,
    listed_object,
    listed_part,
    milliseconds,
    misdirected,
    range_header,
    refusal,
    unambiguous,
)

CONNECT_TIMEOUT = 5.0
# Seconds between two bytes of an answer. The loser of a contended conditional PUT waits up to
# 3 s on SeaweedFS. AWS takes longer to complete a large upload, but sends blanks until then.
READ_TIMEOUT = 20.0
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
# The parameters for the next page of a listing; the answer's fields begin with "Next".
_MARKERS = {
    "list_objects_v2": ("ContinuationToken",),
    "list_parts": ("PartNumberMarker",),
    "list_multipart_uploads": ("KeyMarker", "UploadIdMarker"),
}
_IDENTITY = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, SSOError)


class S3Store(Store):
    """One bucket. ``pool`` is the number of threads that may use it at the same time; the timeouts
    are in seconds. ``credentials`` (access key, secret key) replace botocore's own search, for
    servers that the demo and the tests start themselves."""

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
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = f"s3://{bucket}"
        self._bucket = bucket
        self._keeps_versions = False
        self.client = S3Client(
            ClientSettings(
                endpoint_url=endpoint_url,
                region=region,
                profile=profile,
                checksums=checksums,
                pool=pool,
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                credentials=credentials,
            ),
            now=now,
        )

    def _request(self, operation: str, key: str = "") -> StoreRequest:
        return StoreRequest(operation, key, self._bucket)

    def _call(self, operation: str, key: str = "", **params: Any) -> Any:
        """One request. Raises only errors of the project."""
        try:
            return getattr(self.client.api(), operation)(Bucket=self._bucket, **params)
        except _FAILURES as error:
            raise self._translated(error, self._request(operation, key)) from error

    def _translated(self, error: Exception, request: StoreRequest) -> ReplicatorError:
        if isinstance(error, ClientError):
            return self._refused(error, request)
        if isinstance(error, _IDENTITY):
            message = f"no usable credentials: {error}"
            return request.error(AccessDenied, message, code="no_credentials")
        if isinstance(error, SSLError):
            hint = "check the certificate, or set AWS_CA_BUNDLE"
            return request.error(StoreUnavailable, str(error), hint=hint, code="bad_certificate")
        if isinstance(error, _PASSING):
            return request.error(StoreUnavailable, str(error))
        return request.error(ConfigError, str(error))

    def _refused(self, error: ClientError, request: StoreRequest) -> ReplicatorError:
        code, status = _code(error), _status(error)
        elsewhere = misdirected(error.response, code, status, request)
        if elsewhere is not None:
            return elsewhere
        message = str(error.response.get("Error", {}).get("Message", ""))
        found = refusal(code, status, message, request)
        if code in STALE_IDENTITY:
            self.client.forget()
        elif isinstance(found, AccessDenied):
            self.client.renew()
        return found

    def create_bucket(self) -> None:
        """Create the bucket; for the demo and for tests."""
        self._call("create_bucket")

    def close(self) -> None:
        self.client.close()

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
        expect(answer, "ETag", self._request("put", key))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            self.head(key)
            return b""
        request, wanted = self._request("get", key), range_header(start, length)
        try:
            answer = self.client.api().get_object(Bucket=self._bucket, Key=key, **wanted)
            with answer["Body"] as body:
                data: bytes = body.read()
        except _FAILURES as error:
            if _code(error) == "InvalidRange":  # begins after the end, or the object is empty
                return b""
            raise self._translated(error, request) from error
        expect(answer, "LastModified", request)
        return checked_range(request, answer, data, start, length)

    def head(self, key: str) -> ObjectInfo:
        request = self._request("head", key)
        try:
            answer = self.client.api().head_object(Bucket=self._bucket, Key=key)
        except _FAILURES as error:
            raise self._explained(error, request) from error
        return ObjectInfo(
            key,
            expect(answer, "ContentLength", request),
            milliseconds(answer, request),
            answer.get("Metadata", {}),
            answer.get("ETag", ""),
        )

    def _explained(self, error: Exception, request: StoreRequest) -> ReplicatorError:
        """The reason of a failed HEAD. Its answer has no body: a missing bucket, a missing key and
        an expired token look alike. So a GET asks for the same object."""
        status = _status(error)
        if not 400 <= status < 500 or status == 429:
            return self._translated(error, request)
        try:
            self.get(request.key, 0, 1)
        except ReplicatorError as reason:
            return reason
        return request.error(StoreUnavailable, f"the store answered {status}, and then differently")

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        request = self._request("list", prefix)
        for page in self._pages("list_objects_v2", request, Prefix=prefix, StartAfter=start_after):
            for item in page.get("Contents", ()):
                yield listed_object(item, request)

    def folders(self, prefix: str) -> Folders:
        request = self._request("list", prefix)
        pages = self._pages("list_objects_v2", request, Prefix=prefix, Delimiter="/")
        return sorted(
            {
                expect(item, "Prefix", request)
                for page in pages
                for item in page.get("CommonPrefixes", ())
            }
        )

    def _pages(self, operation: str, request: StoreRequest, **params: Any) -> Iterator[Any]:
        """Every page of a listing. An answer without "IsTruncated" does not come from S3, and must
        not pass for an empty store; nor may the same page arrive for ever. The parts of an upload
        are no such answer: a store that has them names the upload, and one that omits the field
        has sent all."""
        seen: Folders = []
        while True:
            page = self._call(operation, request.key, **{k: v for k, v in params.items() if v})
            if not _truncated(operation, page, request):
                yield page
                return
            following = {name: expect(page, f"Next{name}", request) for name in _MARKERS[operation]}
            if str(following) in seen:
                raise request.error(
                    StoreUnavailable,
                    "the store returned the same page twice",
                    code="incomplete_answer",
                )
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
        return str(expect(answer, "UploadId", self._request("begin", key)))

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
        etag = expect(answer, "ETag", self._request(f"put part {number} of", key))
        return Part(number, len(body), str(etag))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        request = self._request(f"copy part {number} of", key)
        try:
            answer = self.client.api().upload_part_copy(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                CopySourceRange=f"bytes={start}-{start + length - 1}",
                CopySourceIfMatch=source.etag,
            )
        except _FAILURES as error:
            raise copy_refusal(self._translated(error, request), source.key) from error
        etag = answer.get("CopyPartResult", {}).get("ETag")
        if not etag:  # the store may have taken it for an upload of a part without bytes
            raise request.error(CopyRefused, "the answer confirms no copy")
        return Part(number, length, etag)

    def list_parts(self, key: str, upload_id: str) -> Parts:
        request = self._request("parts of", key)
        pages = self._pages("list_parts", request, Key=key, UploadId=upload_id)
        return unambiguous(
            [listed_part(item, request) for page in pages for item in page.get("Parts", ())]
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
        if not answer.get("ETag"):  # some servers omit it; then only a HEAD proves the object
            self._prove_size(key, sum(part.size for part in parts))

    def _prove_size(self, key: str, size: int) -> None:
        try:
            stored = self.head(key).size
        except ObjectMissing:
            stored = -1
        if stored != size:
            raise self._request("complete", key).error(
                StoreUnavailable, "the store confirmed an object that it does not have"
            )

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            self._call("abort_multipart_upload", key, Key=key, UploadId=upload_id)
        except UploadMissing:
            return

    def list_uploads(self, prefix: str) -> Uploads:
        request = self._request("uploads below", prefix)
        pages = self._pages("list_multipart_uploads", request, Prefix=prefix)
        uploads = [
            Upload(expect(item, "Key", request), expect(item, "UploadId", request))
            for page in pages
            for item in page.get("Uploads", ())
        ]
        return sorted(uploads, key=lambda upload: upload.key)  # SeaweedFS sorts by id


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


def _truncated(operation: str, page: Any, request: StoreRequest) -> bool:
    """True if another page follows. ListParts may omit the field, but names the upload."""
    if operation == "list_parts" and page.get("UploadId"):
        return bool(page.get("IsTruncated", False))
    return bool(expect(page, "IsTruncated", request))


def _md5(body: bytes) -> str:
    """The digest that every S3 store verifies. It is not for security."""
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
