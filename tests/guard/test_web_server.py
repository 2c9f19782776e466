"""The port of NNI's web server."""

import socket

import pytest

from guard import web_server


def test_taken_port() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match="taken"):
            web_server.pick_port(port)
        assert web_server.pick_port(None, port) > port
