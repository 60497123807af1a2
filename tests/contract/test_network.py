"""A network that misbehaves between us and a real S3 server: nothing passes for an answer."""

import pytest

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
from replicator.store.base import ObjectInfo
from replicator.store.s3 import S3Store
from tests.helpers.errors import raises
from tests.helpers.proxy import (
    FaultProxy,
    answer,
    corrupt_request,
    drop_answer,
    hang,
    reset,
    reset_early,
    status,
    truncate,
)
from tests.helpers.replication import LONG

BIG = bytes(3 << 20)
NOON = "Wed, 21 Oct 2015 12:00:00 GMT"


@pytest.fixture
def proxied_store(seaweed, fault_proxy):
    """A store whose requests pass through `fault_proxy`."""
    proxied_store = S3Store(
        seaweed.bucket,
        endpoint_url=fault_proxy.url,
        read_timeout=LONG,
        credentials=(seaweed.access_key, seaweed.secret_key),
    )
    yield proxied_store
    proxied_store.close()


@pytest.fixture
def nowhere():
    """A proxy with no server behind it, for answers made up by the test."""
    proxy = FaultProxy("http://127.0.0.1:1")
    yield proxy
    proxy.stop()


@pytest.fixture
def scripted(nowhere):
    """A store on a server that gives scripted answers."""
    store = S3Store("b", endpoint_url=nowhere.url, credentials=("a", "b"), read_timeout=LONG)
    yield store
    store.close()


def raw(code, body=b"", **headers):
    headers["Connection"] = "close"
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "Content_Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"HTTP/1.1 {code} X", *lines, "", ""]).encode() + body


@pytest.mark.parametrize("size", [10, 3 << 20])
@pytest.mark.parametrize("fault", [reset, reset_early, drop_answer], ids=lambda f: f.__name__)
def test_a_reset_may_pass(proxied_store, fault_proxy, prefix, fault, size):
    """Before or after the body, handed on or not: later may be better, and later is."""
    fault_proxy.fault(fault, method="PUT")
    with pytest.raises(StoreUnavailable):
        proxied_store.put(f"{prefix}/a", bytes(size))
    if fault is drop_answer:
        with pytest.raises(ObjectExists):
            proxied_store.put(f"{prefix}/a", bytes(size))
    else:
        proxied_store.put(f"{prefix}/a", bytes(size))


def test_a_hanging_answer_is_given_up(seaweed, fault_proxy, prefix):
    """The read timeout counts for a body sent in full, too."""
    store = S3Store(
        seaweed.bucket,
        endpoint_url=fault_proxy.url,
        read_timeout=0.2,
        credentials=(seaweed.access_key, seaweed.secret_key),
    )
    fault_proxy.fault(hang)
    with pytest.raises(StoreUnavailable):
        store.put(f"{prefix}/a", BIG)


@pytest.mark.parametrize(
    "ask",
    [
        lambda s, k: s.get(k),
        lambda s, k: s.get(k, 100, 2 << 20),
        lambda s, k: s.get(k, -(1 << 20)),
    ],
    ids=["get", "range", "tail"],
)
@pytest.mark.parametrize("kept", [0, 1, 70_000])
def test_a_body_cut_short_is_no_object(proxied_store, fault_proxy, prefix, ask, kept):
    """However much of it came."""
    proxied_store.put(f"{prefix}/a", BIG)
    fault_proxy.fault(truncate(kept), method="GET")
    with pytest.raises(StoreUnavailable):
        ask(proxied_store, f"{prefix}/a")
    assert ask(proxied_store, f"{prefix}/a")


def test_a_body_that_stops_coming_is_given_up(nowhere):
    """The read timeout counts between two pieces of a body: a hang in the middle ends."""
    import asyncio

    async def stall(exchange):
        exchange.writer.write(raw(200, b"half", Content_Length=1000))
        await asyncio.Event().wait()

    store = S3Store("b", endpoint_url=nowhere.url, credentials=("a", "b"), read_timeout=0.2)
    nowhere.fault(stall)
    with pytest.raises(StoreUnavailable):
        store.get("k")


def test_a_body_corrupted_on_its_way_is_refused_and_may_pass(proxied_store, fault_proxy, prefix):
    """The server checks our digest, small or large; the error is one worth another try."""
    for size in (10, 3 << 20):
        fault_proxy.fault(corrupt_request, method="PUT")
        with pytest.raises(StoreUnavailable):
            proxied_store.put(f"{prefix}/{size}", bytes(size))
        with pytest.raises(ObjectMissing):
            proxied_store.head(f"{prefix}/{size}")


def test_a_part_corrupted_on_its_way_is_refused(proxied_store, fault_proxy, prefix):
    """Parts carry a digest as well."""
    upload_id = proxied_store.begin_upload(f"{prefix}/a")
    fault_proxy.fault(corrupt_request, method="PUT")
    with pytest.raises(StoreUnavailable):
        proxied_store.put_part(f"{prefix}/a", upload_id, 1, b"part")
    proxied_store.abort_upload(f"{prefix}/a", upload_id)


@pytest.mark.parametrize(
    ("code", "name", "error"),
    [
        (500, "InternalError", StoreUnavailable),
        (502, "BadGateway", StoreUnavailable),
        (503, "SlowDown", StoreUnavailable),
        (503, "ServiceUnavailable", StoreUnavailable),
        (504, "GatewayTimeout", StoreUnavailable),
        (429, "TooManyRequests", StoreUnavailable),
        (408, "RequestTimeout", StoreUnavailable),
        (400, "RequestTimeout", StoreUnavailable),
        (400, "BadDigest", StoreUnavailable),
        (400, "IncompleteBody", StoreUnavailable),
        (409, "ConditionalRequestConflict", StoreUnavailable),
        (409, "OperationAborted", StoreUnavailable),
        (403, "AccessDenied", AccessDenied),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (403, "InvalidAccessKeyId", AccessDenied),
        (403, "RequestTimeTooSkewed", AccessDenied),
        (400, "ExpiredToken", AccessDenied),
        (403, "ExpiredToken", AccessDenied),
        (401, "Unauthorized", AccessDenied),
        (404, "NoSuchBucket", BucketMissing),
        (404, "NoSuchKey", ObjectMissing),
        (404, "NoSuchUpload", UploadMissing),
        (400, "InvalidPart", UploadMissing),
        (412, "PreconditionFailed", ObjectExists),
        (501, "NotImplemented", StoreUnsafe),
        (400, "AuthorizationHeaderMalformed", ConfigError),
        (404, "NotFound", ConfigError),
        (400, "InvalidArgument", ReplicatorError),
    ],
)
def test_each_error_has_its_meaning(scripted, nowhere, code, name, error):
    """And no other; the message names the call, the key and the store's own code."""
    nowhere.fault(status(code, name), times=None)
    with pytest.raises(ReplicatorError) as caught:
        scripted.put("the/key", b"x")
    assert type(caught.value) is error
    assert "the/key" in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("code", "name", "error"),
    [
        (400, "ExpiredToken", AccessDenied),
        (403, "AccessDenied", AccessDenied),
        (404, "NoSuchBucket", BucketMissing),
        (404, "NoSuchKey", ObjectMissing),
        (404, "NotFound", ConfigError),
        (503, "SlowDown", StoreUnavailable),
        (429, "TooManyRequests", StoreUnavailable),
    ],
)
def test_a_bare_head_is_explained(scripted, nowhere, code, name, error):
    """A HEAD's error has a status and nothing else; the reason is found out."""
    nowhere.fault(status(code, name), times=None)
    with pytest.raises(ReplicatorError) as caught:
        scripted.head("k")
    assert type(caught.value) is error


def test_a_head_that_contradicts_itself_may_pass(scripted, nowhere):
    """Missing, and there a moment later: neither is believed."""
    nowhere.fault(status(404, "NoSuchKey"), method="HEAD")
    found = raw(206, b"x", Content_Range="bytes 0-0/10", Last_Modified=NOON)
    nowhere.fault(answer(found), method="GET")
    with pytest.raises(StoreUnavailable):
        scripted.head("k")


HTML = raw(200, b"<html><body>please log in</body></html>", Content_Type="text/html")


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.put("k", b"x"),
        lambda s: list(s.list("p/")),
        lambda s: s.folders("p/"),
        lambda s: s.begin_upload("k"),
        lambda s: s.put_part("k", "id", 1, b"x"),
        lambda s: s.list_parts("k", "id"),
        lambda s: s.list_uploads(""),
        lambda s: s.get("k"),
        lambda s: s.head("k"),
        lambda s: s.complete_upload("k", "id", [scripted_part(3)]),
    ],
    ids=["put", "list", "folders", "begin", "part", "parts", "uploads", "get", "head", "complete"],
)
def test_a_friendly_web_server_is_not_a_store(scripted, nowhere, call):
    """A captive portal answers 200 to anything: nothing was stored, nothing is empty."""
    nowhere.fault(answer(HTML), times=None)
    with pytest.raises(StoreUnavailable):
        call(scripted)


@pytest.mark.parametrize("code", [301, 302, 307])
@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.put("k", b"x"),
        lambda s: s.get("k"),
        lambda s: s.head("k"),
        lambda s: list(s.list("p/")),
    ],
    ids=["put", "get", "head", "list"],
)
def test_a_redirect_leads_nowhere(scripted, nowhere, call, code):
    """A login page or a way to https is not followed, and asked about only once."""
    nowhere.fault(answer(raw(code, Location="https://login.test/")), times=None)
    with pytest.raises(ConfigError) as caught:
        call(scripted)
    assert "--endpoint-url" in caught.value.hint
    assert nowhere.count() <= 4


def test_the_region_of_the_bucket_is_found_out(scripted, nowhere):
    """A store that names the region for the signature gets that signature."""
    wrong = (
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong"
        b"</Message><Region>eu-west-1</Region></Error>"
    )
    heads = []

    async def strict(exchange):
        heads.append(exchange.raw)
        right = b"/eu-west-1/s3/aws4_request" in exchange.raw
        return raw(200, ETag='"e"') if right else raw(400, wrong)

    nowhere.fault(strict, times=None)
    scripted.put("k", b"x")
    assert len(heads) == 2


XML = b'<?xml version="1.0"?>\n'
LISTING = XML + (
    b"<ListBucketResult><IsTruncated>%s</IsTruncated><NextContinuationToken>t"
    b"</NextContinuationToken><Contents><Key>a</Key><Size>1</Size>"
    b"<LastModified>2020-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
)


@pytest.mark.parametrize("kept", [0, 1, 22, 40, 100, 200])
@pytest.mark.parametrize("announced", [True, False])
def test_a_listing_cut_short_is_not_a_shorter_listing(scripted, nowhere, kept, announced):
    """At any byte, with or without a declared length."""
    whole = LISTING % b"false"
    told = f"Content-Length: {len(whole)}\r\n" if announced else ""
    head = f"HTTP/1.1 200 OK\r\n{told}Connection: close\r\n\r\n".encode()
    nowhere.fault(answer(head + whole[:kept]))
    with pytest.raises(StoreUnavailable):
        list(scripted.list(""))
    nowhere.fault(answer(head + whole))
    assert [info.key for info in scripted.list("")] == ["a"]


def test_a_listing_that_does_not_get_on_ends(scripted, nowhere):
    """A cache that looks at the path only gives the first page for ever."""
    nowhere.fault(answer(raw(200, LISTING % b"true")), times=None)
    with raises(StoreUnavailable, "incomplete_answer", operation="list"):
        list(scripted.list(""))
    assert nowhere.count() == 2


@pytest.mark.parametrize(
    ("body", "call"),
    [
        (b"<L><IsTruncated>true</IsTruncated></L>", lambda s: list(s.list(""))),
        (b"<L><IsTruncated>true</IsTruncated></L>", lambda s: s.list_parts("k", "id")),
        (b"<L><IsTruncated>true</IsTruncated></L>", lambda s: s.list_uploads("")),
        (
            b"<L><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents></L>",
            lambda s: list(s.list("")),
        ),
        (b"<L><IsTruncated>false</IsTruncated><CommonPrefixes/></L>", lambda s: s.folders("")),
        (
            b"<L><IsTruncated>false</IsTruncated><Part><Size>1</Size></Part></L>",
            lambda s: s.list_parts("k", "id"),
        ),
        (
            b"<L><IsTruncated>false</IsTruncated><Upload><Key>k</Key></Upload></L>",
            lambda s: s.list_uploads(""),
        ),
    ],
    ids=["list page", "parts page", "uploads page", "object", "folder", "part", "upload"],
)
def test_a_listing_with_holes_is_no_answer(scripted, nowhere, body, call):
    """A missing field that every store sends is an error."""
    nowhere.fault(answer(raw(200, XML + body)), times=None)
    with raises(StoreUnavailable, "incomplete_answer"):
        call(scripted)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<Error><Code>InternalError</Code><Message>m</Message></Error>", StoreUnavailable),
        (b"<Error><Code>SlowDown</Code><Message>m</Message></Error>", StoreUnavailable),
        (b"<Error><Code>PreconditionFailed</Code><Message>m</Message></Error>", ObjectExists),
        (b"<Error><Code>NoSuchUpload</Code><Message>m</Message></Error>", UploadMissing),
        (b"   ", StoreUnavailable),
    ],
    ids=["internal", "slow down", "exists", "missing", "blank"],
)
def test_a_completion_that_fails_after_saying_200_failed(scripted, nowhere, body, error):
    """S3 sends the status before it knows; the truth is in the body."""
    nowhere.fault(answer(raw(200, XML + body)))
    with pytest.raises(error):
        scripted.complete_upload("k", "id", [scripted_part(3)])


def test_an_acknowledgement_without_etag_is_proved(scripted, nowhere):
    """Some servers leave it out when an upload is completed; then the size is looked up."""
    done = raw(200, b"<CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>")
    nowhere.fault(answer(done), method="POST", times=None)
    found = raw(200, Content_Length=3, Last_Modified=NOON)
    nowhere.fault(answer(found), method="HEAD", times=2)
    nowhere.fault(status(404, "NoSuchKey"))
    part = scripted_part(3)
    scripted.complete_upload("k", "id", [part])
    with pytest.raises(StoreUnavailable):
        scripted.complete_upload("k", "id", [part, part])
    nowhere.fault(status(404, "NoSuchKey"), times=None)
    with pytest.raises(StoreUnavailable):
        scripted.complete_upload("k", "id", [part])


def scripted_part(size):
    from replicator.store.base import Part

    return Part(1, size, '"e"')


def test_a_missing_object_is_as_good_as_deleted(scripted, nowhere):
    """S3 itself answers 204; others answer with the result."""
    nowhere.fault(status(404, "NoSuchKey"))
    scripted.delete("k")


def test_uploads_are_listed_beyond_a_page(scripted, nowhere):
    """The next page is asked for by key and id."""

    def page(key, more):
        return answer(
            raw(
                200,
                (
                    f"<ListMultipartUploadsResult><IsTruncated>{more}</IsTruncated>"
                    f"<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>9</NextUploadIdMarker>"
                    f"<Upload><Key>{key}</Key><UploadId>9</UploadId></Upload>"
                    "</ListMultipartUploadsResult>"
                ).encode(),
            )
        )

    nowhere.fault(page("a", "false"), path="key-marker=b")
    nowhere.fault(page("b", "true"))
    assert [upload.key for upload in scripted.list_uploads("")] == ["a", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        "bytes 0-9/100",
        "bytes 20-29/100",
        "bytes 11-20/100",
        "bytes 10-19/*",
        "",
    ],
    ids=["earlier", "later", "one off", "of unknown size", "untold"],
)
def test_another_range_is_not_the_one_asked_for(scripted, nowhere, wrong):
    """A server or cache that mixes up ranges, or does not name the range, is detected."""
    nowhere.fault(answer(raw(206, b"0123456789", Content_Range=wrong, Last_Modified=NOON)))
    with pytest.raises(StoreUnavailable):
        scripted.get("k", 10, 10)


def test_a_server_without_ranges_is_bearable(scripted, nowhere):
    """It sends the whole object; the store cuts out the range."""
    nowhere.fault(answer(raw(200, b"0123456789", Last_Modified=NOON)), times=None)
    assert scripted.get("k", 2, 3) == b"234"
    assert scripted.get("k", 8, 5) == b"89"
    assert scripted.get("k", -3) == b"789"


def test_a_large_refused_body_is_told_as_refused(proxied_store, fault_proxy, seaweed, prefix):
    """The answer comes before the body is sent, and is read instead of a reset."""
    proxied_store.put(f"{prefix}/a", b"x")
    with pytest.raises(ObjectExists):
        S3Store(
            seaweed.bucket,
            endpoint_url=seaweed.endpoint_url,
            credentials=(seaweed.access_key, seaweed.secret_key),
        ).put(f"{prefix}/a", BIG)


def test_only_large_bodies_wait_for_leave(scripted, nowhere):
    """Asking first saves sending megabytes to be refused, and would cost every small put."""
    heads = []

    async def note(exchange):
        heads.append(exchange.raw.lower())
        return raw(200, ETag='"e"')

    nowhere.fault(note, times=None)
    for size in (0, 100, (1 << 20) - 1, 1 << 20):
        scripted.put("k", bytes(size))
    assert [b"expect: 100-continue" in head for head in heads] == [False, False, False, True]


def test_one_request_per_call(proxied_store, fault_proxy, prefix):
    """botocore never retries, and no request is superfluous."""
    proxied_store.put(f"{prefix}/a", b"x")
    proxied_store.get(f"{prefix}/a", 0, 1)
    proxied_store.head(f"{prefix}/a")
    list(proxied_store.list(f"{prefix}/"))
    fault_proxy.fault(status(503, "SlowDown"), times=None)
    with pytest.raises(StoreUnavailable):
        proxied_store.put(f"{prefix}/b", b"x")
    assert [method for method, _, _ in fault_proxy.requests] == ["PUT", "GET", "HEAD", "GET", "PUT"]


def test_a_refusing_proxy_comes_back(proxied_store, fault_proxy, prefix):
    """Down and up again at the same address: the same store works again."""
    proxied_store.put(f"{prefix}/a", b"x")
    fault_proxy.down()
    with pytest.raises(StoreUnavailable):
        proxied_store.get(f"{prefix}/a")
    fault_proxy.up()
    assert proxied_store.get(f"{prefix}/a") == b"x"


ERROR = b"<Error><Code>%s</Code><Message>no</Message></Error>"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status(501, "NotImplemented"), CopyRefused),
        (status(400, "InvalidArgument"), CopyRefused),
        (status(405, "MethodNotAllowed"), CopyRefused),
        (answer(raw(200, ETag='"d41d8"')), CopyRefused),  # taken for the upload of an empty part
        (status(412, "PreconditionFailed"), ObjectMissing),
        (status(404, "NoSuchKey"), ObjectMissing),
        (status(404, "NoSuchUpload"), UploadMissing),
        (status(403, "AccessDenied"), AccessDenied),
        (status(503, "SlowDown"), StoreUnavailable),
        (
            answer(raw(200, ERROR % b"InternalError", Content_Type="application/xml")),
            StoreUnavailable,
        ),  # S3 may notice only after it has begun to answer
    ],
)
def test_what_a_store_says_to_a_copy(scripted, nowhere, fault, error):
    """A store that cannot copy, a missing source, and an outage have different errors."""
    nowhere.fault(fault, times=None)
    source = ObjectInfo("a", 10, 0, etag='"x"')
    with pytest.raises(error):
        scripted.copy_part("k", "id", 1, source, 0, 10)
