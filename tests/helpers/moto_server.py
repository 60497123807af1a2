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
