"""The botocore client of :mod:`.s3`: lean at start-up, without retries, with timeouts.

Owns the session, the credentials' source, and three corrections of botocore's behaviour. Refuses to
send a request. botocore alone handles credentials, profiles, roles, session tokens, proxies and CA
bundles.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from botocore.handlers import add_expect_header
from botocore.loaders import Loader
from botocore.session import Session
from botocore.utils import parse_timestamp

from replicator.store.address import Checksums
from replicator.store.s3_errors import moment

# Larger bodies ask for "100 Continue" first, so that the client reads a refusal instead of a
# reset. Smaller bodies do not: waiting for it costs a seventh of a small PUT's CPU, and a second if
# the server hangs.
EXPECT_BYTES = 1 << 20
# Seconds in which a refusal does not read the credentials again. A new client takes 0.3 s of CPU,
# and a policy that forbids one action, e.g. deletions, refuses it every time.
FRESH = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """``pool`` is the number of connections kept; the timeouts are in seconds. ``credentials``
    (access key, secret key) replace botocore's own search."""

    endpoint_url: str | None
    region: str | None
    profile: str | None
    checksums: Checksums
    pool: int
    connect_timeout: float
    read_timeout: float
    credentials: tuple[str, str] | None

    def config(self, **s3: str) -> Config:
        return Config(
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            max_pool_connections=self.pool,
            parameter_validation=False,  # with the next two lines 20 % of a small PUT's CPU
            request_checksum_calculation=self.checksums,
            response_checksum_validation=self.checksums,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            user_agent="replicator",
            s3=s3,
        )


class S3Client:
    """One shared client, made at the first use and again after :meth:`forget`."""

    def __init__(
        self, settings: ClientSettings, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._now = now
        self._made = 0.0  # when the client read the credentials
        self._loader = _LeanLoader(endpoints=settings.endpoint_url is None)
        self._lock = threading.Lock()
        self._client: Any = None

    def api(self) -> Any:
        """Botocore's client. Without credentials none is kept, because they may appear later."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
                self._made = self._now()
            return self._client

    def forget(self) -> None:
        """Read the credentials again at the next call; they may have been rotated."""
        with self._lock:
            self._client = None

    def renew(self) -> None:
        """The store refused the client: :meth:`forget` it, unless its credentials were read less
        than :data:`FRESH` seconds ago."""
        with self._lock:
            if self._now() - self._made >= FRESH:
                self._client = None

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> Any:
        settings, session = self.settings, self._session()
        region = settings.region or session.get_config_variable("region")
        special = {}
        if settings.endpoint_url is not None:
            special = {
                "addressing_style": _chosen_style(session) or "path",
                "us_east_1_regional_endpoint": "regional",  # else it needs the table of endpoints
            }
        client = session.create_client(
            "s3",
            endpoint_url=settings.endpoint_url,
            config=settings.config(**special),
            region_name=region or ("us-east-1" if settings.endpoint_url else None),
        )
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register("before-call.s3", _expect_continue)
        client.meta.events.register("before-call.s3.HeadBucket", _no_region)
        return client

    def _session(self) -> Session:
        session = Session(profile=self.settings.profile)
        session.register_component("data_loader", self._loader)
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=lambda value: moment(value) or parse_timestamp(value)
        )
        if self.settings.credentials is not None:
            session.set_credentials(*self.settings.credentials)
        if session.get_credentials() is None:
            raise NoCredentialsError
        return session


class _LeanLoader(Loader):  # type: ignore[misc]
    """Knows S3 and the services for credentials, instead of searching 400 directories of models.

    Saves 50 ms and 7 MiB at start-up. Leaves out the table of endpoints (1.2 MB) if the endpoint is
    given.
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


def _chosen_style(session: Session) -> str | None:
    """The addressing style of the user's own profile, which has priority over ours."""
    return (session.get_scoped_config().get("s3") or {}).get("addressing_style")


def _no_region(**_: object) -> tuple[AWSResponse, dict[str, Any]]:
    """An answer without a region. Botocore asks for a bucket's region when a redirect names none,
    and again when the answer is a redirect, until the stack overflows. S3 names it at once."""
    return AWSResponse("", 200, {}, None), {"ResponseMetadata": {"HTTPHeaders": {}}}


def _expect_continue(params: dict[str, Any], **_: object) -> None:
    """Ask for "100 Continue" before a large body. Botocore's own handler asks for any size; it
    sends bytes as a file."""
    body = params.get("body")  # from its end to its start it is this long; a view would copy it
    small = isinstance(body, io.BytesIO) and body.seek(0, 2) - body.seek(0) < EXPECT_BYTES
    if hasattr(body, "read") and not small:
        params["headers"]["Expect"] = "100-continue"
