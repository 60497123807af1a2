"""A moto server in this process that handles one request at a time.

moto shares the buffer of an object between requests without a lock: a PUT that replaces an object
closes the buffer that another answer still reads, and that answer is a 500. A test that counts
requests then sees the retry. The body of a request is read before its turn, so a slow client
delays only itself.
"""

import io
import threading

from werkzeug.serving import make_server
from werkzeug.wrappers import Request

from replicator.store.base import Part
from replicator.store.s3 import S3Store


class OneAtATime:
    """A WSGI application that passes requests on to `application` one after another."""

    def __init__(self, application):
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ, start_response):
        body = Request(environ).get_data(cache=False)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        with self._turn:
            return [b"".join(self._application(environ, start_response))]


class MotoServer:
    """A server on a free loopback port; `endpoint` is its address."""

    def __init__(self):
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )

        application = OneAtATime(DomainDispatcherApplication(create_backend_app))
        self._server = make_server(
            "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self._server.port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class MotoStore(S3Store):
    """A store on a server in this process. Each request takes 15 ms, so that a test fills a page
    of a listing without requests."""

    def fill(self, keys):
        """Puts empty objects."""
        for key in keys:
            _backend().put_object(self._bucket, key, b"")

    def fill_parts(self, upload_id, numbers):
        """Puts parts of an upload that hold their number, and returns them."""
        upload = _backend().get_bucket(self._bucket).multiparts[upload_id]
        bodies = {number: b"%d" % number for number in numbers}
        return [
            Part(number, len(body), upload.set_part(number, body).etag)
            for number, body in bodies.items()
        ]


def _backend():
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
