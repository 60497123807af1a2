"""A control socket that answers for a replicator in the test's own process."""

from contextlib import closing, contextmanager

from replicator.sidecar.control_server import ControlServer, ControlSocket


@contextmanager
def answering(directory, replicator):
    """Commands that look into ``directory`` reach ``replicator`` inside this block."""
    with closing(ControlServer()) as server, closing(ControlSocket(directory, replicator, server)):
        yield
