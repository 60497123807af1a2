"""S3Store: the parts of botocore that we rely on, and the cost of a start."""

import datetime as dt
import ipaddress
import os
import ssl
import subprocess
import sys
import threading

import pytest
from botocore.utils import parse_timestamp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from replicator.errors import AccessDenied, ConfigError, StoreUnavailable
from replicator.store.retry import RetryingStore, RetryPolicy
from replicator.store.s3 import S3Store
from replicator.store.s3_client import FRESH
from replicator.store.s3_errors import moment
from tests.helpers.errors import raises
from tests.helpers.proxy import FaultProxy

OK = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'


@pytest.fixture
def server():
    """A proxy that answers everything itself; ``heads`` are the requests it saw."""
    proxy = FaultProxy("http://127.0.0.1:1")
    proxy.heads = []
    proxy.refusals = []  # answers before those that are OK

    async def note(exchange):
        if proxy.refusals:
            return proxy.refusals.pop(0)
        proxy.heads.append(exchange.raw.decode("latin-1"))
        return OK

    proxy.fault(note, times=None)
    yield proxy
    proxy.stop()


def put(store):
    store.put("k", b"x")


def environment(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_deletion_tells_whether_versions_are_kept(moto_server):
    """Without versioning the object is gone; with it only hidden."""
    credentials = ("testing", "testing")
    store = S3Store(
        "versions", endpoint_url=moto_server, region="us-east-1", credentials=credentials
    )
    store._call("create_bucket")
    wrapped = RetryingStore(store, RetryPolicy(deadline=1.0))
    for kept in (False, True):
        if kept:
            store._call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        wrapped.put("k", b"x")
        wrapped.delete("k")
        assert wrapped.keeps_versions is kept


def test_a_session_token_is_sent_along(server, monkeypatch):
    """Temporary credentials consist of three parts."""
    environment(
        monkeypatch, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_SESSION_TOKEN="the-token"
    )
    put(S3Store("b", endpoint_url=server.url))
    assert "x-amz-security-token: the-token" in server.heads[0].lower()


def test_a_role_is_assumed(moto_server, server, monkeypatch, tmp_path):
    """A profile that names a role asks STS for credentials, although only S3's model is
    loaded; these credentials sign the request."""
    (tmp_path / "config").write_text(
        "[profile base]\naws_access_key_id=base\naws_secret_access_key=b\n"
        "[profile role]\nrole_arn=arn:aws:iam::123456789012:role/replicator\n"
        "source_profile=base\nregion=eu-west-1\n"
    )
    environment(
        monkeypatch, AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_ENDPOINT_URL_STS=moto_server
    )
    put(S3Store("b", endpoint_url=server.url, profile="role"))
    assert "x-amz-security-token" in server.heads[0].lower()
    assert "Credential=base/" not in server.heads[0]
    assert "/eu-west-1/s3/aws4_request" in server.heads[0]


def test_a_role_that_cannot_be_assumed_is_denied_or_away(monkeypatch, tmp_path, server):
    """An unreachable STS is an outage, not a wrong password."""
    (tmp_path / "config").write_text(
        "[profile base]\naws_access_key_id=base\naws_secret_access_key=b\n"
        "[profile role]\nrole_arn=arn:aws:iam::1:role/r\nsource_profile=base\nregion=x\n"
    )
    environment(
        monkeypatch,
        AWS_CONFIG_FILE=str(tmp_path / "config"),
        AWS_ENDPOINT_URL_STS="http://127.0.0.1:1",
    )
    with pytest.raises(StoreUnavailable):
        put(S3Store("b", endpoint_url=server.url, profile="role"))


def test_an_unknown_profile_is_a_mistake_in_the_configuration(server):
    """Trying again does not help."""
    with raises(ConfigError) as caught:
        put(S3Store("b", endpoint_url=server.url, profile="absent"))
    assert "absent" in str(caught.value)


def test_half_of_the_credentials_are_none(server, monkeypatch):
    """A key without its secret is denied before anything is sent."""
    environment(monkeypatch, AWS_ACCESS_KEY_ID="a")
    with pytest.raises(AccessDenied):
        put(S3Store("b", endpoint_url=server.url))
    assert server.heads == []


def answer(status, code="", headers="", **fields):
    """The answer of a store that refuses a request."""
    inside = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    body = f"<Error><Code>{code}</Code>{inside}</Error>" if code else "<html>no</html>"
    head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"{head}{headers}\r\n{body}".encode()


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (401, ""), (403, "SomethingElse"), (403, ""), (400, "ExpiredToken")],
)
def test_credentials_are_looked_up_anew_after_every_refusal(server, monkeypatch, status, code):
    """Rotated credentials are found without a restart, whatever the store calls the refusal."""
    clock = [0.0]
    environment(monkeypatch, AWS_ACCESS_KEY_ID="old", AWS_SECRET_ACCESS_KEY="b")
    store = S3Store("b", endpoint_url=server.url, now=lambda: clock[0])
    put(store)
    environment(monkeypatch, AWS_ACCESS_KEY_ID="new", AWS_SECRET_ACCESS_KEY="b")
    clock[0] += FRESH
    server.refusals = [answer(status, code)]
    with pytest.raises(AccessDenied):
        put(store)
    put(store)
    assert ["Credential=new/" in head for head in server.heads] == [False, True]


def test_a_policy_that_forbids_an_action_costs_no_new_client_each_time(server, monkeypatch):
    """Credentials that were read a moment ago are not read again."""
    clock = [0.0]
    store = S3Store("b", endpoint_url=server.url, credentials=("a", "b"), now=lambda: clock[0])
    put(store)
    known = store.client.api()
    server.refusals = [answer(403, "AccessDenied")] * 2
    for seconds, same in ((FRESH - 1, True), (FRESH, False)):
        clock[0] = seconds
        with pytest.raises(AccessDenied):
            put(store)
        assert (store.client.api() is known) is same


REDIRECTS = {
    "region in a header": (
        answer(301, "PermanentRedirect", "x-amz-bucket-region: eu-west-1\r\n"),
        "wrong_region",
        "--region eu-west-1",
    ),
    "region in a field": (
        answer(400, "AuthorizationHeaderMalformed", Region="eu-west-1"),
        "wrong_region",
        "--region eu-west-1",
    ),
    "region in the message": (
        answer(400, "AuthorizationHeaderMalformed", Message="wrong; expecting 'eu-west-1'"),
        "wrong_region",
        "--region eu-west-1",
    ),
    "region unknown": (
        answer(400, "IllegalLocationConstraintException"),
        "wrong_region",
        "--region",
    ),
    "https": (
        answer(301, headers="Location: https://s3.example.com/b/k\r\n"),
        "redirected",
        "--endpoint-url https://s3.example.com",
    ),
    "other endpoint": (
        answer(307, "TemporaryRedirect", Endpoint="b.s3.example.com"),
        "redirected",
        "--endpoint-url https://s3.example.com",
    ),
    "nowhere": (answer(308), "redirected", "--endpoint-url"),
    "no address": (
        answer(307, "TemporaryRedirect", Endpoint="[bad"),
        "redirected",
        "--endpoint-url",
    ),
}


@pytest.mark.parametrize("name", REDIRECTS)
@pytest.mark.parametrize("ask", [put, lambda store: list(store.list(""))], ids=["put", "list"])
def test_a_request_to_the_wrong_place_names_the_right_one(server, name, ask):
    """A redirect or a wrong region is a setting that cannot work; the hint is the fix."""
    told, code, hint = REDIRECTS[name]
    server.refusals = [told] * 5  # botocore asks again in the region that it learns
    with raises(ConfigError, code) as caught:
        ask(S3Store("b", endpoint_url=server.url, credentials=("a", "b")))
    assert hint in caught.value.hint


@pytest.mark.parametrize("field", ["", "<IsTruncated>false</IsTruncated>"])
def test_parts_without_a_mark_of_more_are_all_parts(server, field):
    """ListParts may omit IsTruncated; an answer that is not of this request is refused."""
    part = '<Part><PartNumber>1</PartNumber><Size>5</Size><ETag>"e"</ETag></Part>'

    def told(upload):
        body = f"<ListPartsResult>{upload}{field}{part}</ListPartsResult>"
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    store = S3Store("b", endpoint_url=server.url, credentials=("a", "b"))
    server.refusals = [told("<UploadId>u</UploadId>")]
    assert [(part.number, part.size) for part in store.list_parts("k", "u")] == [(1, 5)]
    server.refusals = [told("")]
    if not field:
        with raises(StoreUnavailable, "incomplete_answer"):
            store.list_parts("k", "u")


@pytest.mark.parametrize(("size", "good"), [("5", True), ("-1", False), (str(1 << 62), False)])
def test_an_impossible_size_is_no_answer(server, size, good):
    """A listing with a size that no object has is refused, and not printed as a fact."""
    body = (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>k</Key>"
        f"<Size>{size}</Size><LastModified>2026-01-31T14:05:00.000Z</LastModified></Contents>"
        "</ListBucketResult>"
    )
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    server.refusals = [(head + body).encode()]
    store = S3Store("b", endpoint_url=server.url, credentials=("a", "b"))
    if good:
        assert [info.size for info in store.list("")] == [5]
    else:
        with raises(StoreUnavailable, "incomplete_answer"):
            list(store.list(""))


@pytest.mark.parametrize("bucket", ["", "a/b", "UPPER CASE"])
def test_an_impossible_bucket_is_a_mistake_in_the_configuration(server, bucket):
    """It is checked before any request."""
    with pytest.raises(ConfigError):
        put(S3Store(bucket, endpoint_url=server.url, credentials=("a", "b")))
    assert server.heads == []


def test_the_bucket_is_in_the_path_at_an_endpoint_of_ones_own(server):
    """Host names with the bucket in front rarely resolve there."""
    put(S3Store("my-bucket", endpoint_url=server.url, credentials=("a", "b")))
    assert server.heads[0].startswith("PUT /my-bucket/k HTTP")


def test_the_profile_may_want_the_bucket_in_the_host_name(monkeypatch, tmp_path):
    """Some stores insist on it."""
    (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    store = S3Store("bucket", endpoint_url="http://store.test:1", credentials=("a", "b"))
    assert store.client.api().meta.config.s3["addressing_style"] == "virtual"


def test_at_aws_region_and_endpoint_are_botocores_business(monkeypatch):
    """Without an endpoint nothing is imposed: regional host names, its own addressing."""
    store = S3Store("bucket", region="eu-central-1", credentials=("a", "b"))
    assert store.client.api().meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
    assert (
        S3Store("bucket", credentials=("a", "b"))
        .client.api()
        .meta.endpoint_url.endswith("amazonaws.com")
    )
    assert (
        S3Store("bucket", region="cn-north-1", credentials=("a", "b"))
        .client.api()
        .meta.endpoint_url
        == "https://s3.cn-north-1.amazonaws.com.cn"
    )


def test_the_region_is_signed_for(server, monkeypatch):
    """Given, or of the environment, or the usual one."""

    def region_of(**settings):
        put(S3Store("b", endpoint_url=server.url, credentials=("a", "b"), **settings))
        return server.heads[-1].partition("Credential=a/")[2].split("/")[1]

    assert region_of() == "us-east-1"
    assert region_of(region="auto") == "auto"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert region_of() == "eu-north-1"


def test_a_closed_store_lets_go(server):
    """Closing twice is no error, before the first request neither."""
    store = S3Store("b", endpoint_url=server.url, credentials=("a", "b"))
    store.close()
    put(store)
    store.close()
    store.close()


# --------------------------------------------------------------------- TLS


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1; certificate and key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def tls_server(certificate):
    """The `server` behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = FaultProxy("http://127.0.0.1:1", tls=context)

    async def fine(exchange):
        return OK

    proxy.fault(fine, times=None)
    yield proxy
    proxy.stop()


def test_a_ca_bundle_of_ones_own_is_used(tls_server, certificate, monkeypatch):
    """AWS_CA_BUNDLE, as for every AWS tool."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    put(S3Store("b", endpoint_url=tls_server.url, credentials=("a", "b")))


def test_an_unknown_certificate_is_refused_with_a_hint(tls_server):
    """And nothing is sent."""
    with pytest.raises(StoreUnavailable) as caught:
        put(S3Store("b", endpoint_url=tls_server.url, credentials=("a", "b")))
    assert "AWS_CA_BUNDLE" in caught.value.hint
    assert tls_server.requests == []


# --------------------------------------------------------------------- threads and start


def test_many_threads_share_one_client(server):
    """Threads that race for it get the same client."""
    store = S3Store("b", endpoint_url=server.url, credentials=("a", "b"))
    start, clients = threading.Barrier(8), []

    def ask():
        start.wait()
        clients.append(store.client.api())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, clients))) == 1


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import replicator.store.registry, replicator.store.retry, replicator.store.probe", ""),
        (
            "from replicator.store.registry import *\n"
            "from replicator.store.address import StoreAddress\n"
            "open_store(StoreAddress('file', path='/'))",
            "",
        ),
        (
            "from replicator.store.registry import *\n"
            "from replicator.store.address import StoreAddress\n"
            "open_store(StoreAddress('s3', bucket='b'))",
            "botocore",
        ),
    ],
)
def test_botocore_is_loaded_only_for_s3(code, loaded):
    """It costs a tenth of a second and 20 MiB."""
    code += "\nimport sys; print(*{'boto3', 'botocore'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == loaded


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T10:00:01.250Z",
        "2026-11-21T10:00:01Z",
        "2026-11-21T11:00:01+01:00",
        "Sat, 21 Nov 2026 10:00:01 GMT",
    ],
)
def test_the_times_s3_writes_are_read_as_botocore_reads_them(text):
    """The quick parser gives the result of the thorough one."""
    assert moment(text) == parse_timestamp(text)
    assert moment(text).tzinfo is not None


@pytest.mark.parametrize("other", [1795600801, 1795600801.5, "1795600801", "", "yesterday", None])
def test_times_in_other_forms_are_left_to_botocore(other):
    """In the forms of the credential services; any other text gives None."""
    assert moment(other) is None
