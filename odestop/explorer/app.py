"""The explorer's server: a Dash app of local files only, and how it is started and ended."""

from __future__ import annotations

import errno
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Thread
from typing import Any

import torch
from dash import Dash
from flask import Flask, Response, request
from plotly import __version__ as plotly_version
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs
from werkzeug.exceptions import NotFound
from werkzeug.serving import WSGIRequestHandler, make_server

from odestop.explorer import callbacks, layout
from odestop.explorer.answers import answers
from odestop.explorer.jobs import Jobs
from odestop.explorer.presets import DEFAULT_PRESET, PRESETS
from odestop.explorer.query import to_query
from odestop.explorer.replies import questions
from odestop.explorer.scene import Scene
from odestop.explorer.solving import CancelledError

PORTS_TRIED = 20

_PATIENCE = 20.0
"""Seconds that Ctrl-C waits for what cannot be cancelled, such as a figure for print."""


class _QuietRequestHandler(WSGIRequestHandler):
    """Keeps connections open between requests, and writes no line for each."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Write nothing."""


def create_app(scene: Scene | None = None, jobs: Jobs | None = None) -> Dash:
    """Return the explorer as a Dash app, whose ``server`` is a WSGI application.

    Parameters
    ----------
    scene
        What is shown where the page's address names nothing else; the first preset by default.
    jobs
        For cancelling what is under way from outside.

    Examples
    --------
    >>> create_app().server.test_client().get("/").status_code
    200
    """
    app = Dash(
        "odestop.explorer",
        title="odestop explorer",
        update_title="",
        serve_locally=True,
        suppress_callback_exceptions=True,
        add_log_handler=False,
        enable_mcp=False,
        external_scripts=[f"/plotly.js?{plotly_version}"],
    )
    app.layout = layout.page(scene or PRESETS[DEFAULT_PRESET].scene)
    callbacks.register(app)
    _add_routes(app.server, jobs or Jobs())
    return app


def _add_routes(server: Flask, jobs: Jobs) -> None:
    """Add what the page asks for besides itself: Plotly's script, and the answers to its questions.

    A question is JSON and says so, which other pages' scripts may not send here without the server's consent, and the
    server gives none.
    """
    answers_by_name = questions(jobs)

    @server.get("/plotly.js")
    def plotly() -> Response:
        return Response(get_plotlyjs(), mimetype="text/javascript", headers={"Cache-Control": "max-age=31536000"})

    @server.post("/answer/<name>")
    def answer(name: str) -> Response:
        if name not in answers_by_name:
            raise NotFound
        asked = request.get_json()
        try:
            reply, status = answers_by_name[name](asked), 200
        except Exception as error:
            # Whatever nobody has foreseen is told to the page, which goes on.
            reply, status = {"message": f"This could not be computed: {error}"}, 500
        return Response(to_json_plotly(reply), status, mimetype="application/json")


def serve(
    scene: Scene | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    open_browser: bool = True,
    announce: Callable[[str], object] = print,
) -> None:
    """Serve the explorer until Ctrl-C.

    Parameters
    ----------
    scene
        What to start with; the first preset by default.
    host
        Address to listen at.  Other machines reach the server only if it is not the local one.
    port
        Where to listen; if it is taken, one of the next 20 ports is.
    open_browser
        Whether to show the page in the user's browser.
    announce
        Called with one line that names the page's address, once it can be opened.

    Raises
    ------
    OSError
        If there is no free port, or the host is not an address of this machine.
    """
    # One page is one person; more threads per solve only make the small ones slower.
    torch.set_num_threads(1)
    listener = listener_at(host, port)
    jobs = Jobs()
    application = create_app(scene, jobs).server
    traffic = _Traffic(application)
    server = make_server(
        host, port, application, threaded=True, request_handler=_QuietRequestHandler, fd=listener.fileno()
    )
    address = f"http://{_in_address(host)}:{listener.getsockname()[1]}/"
    warming = Thread(target=_warm_up, args=(scene or PRESETS[DEFAULT_PRESET].scene, jobs.watch("warm-up", 1)))
    warming.start()
    announce(f"The explorer is at {address} (Ctrl-C ends it)")
    if open_browser:
        webbrowser.open(f"{address}?{to_query(scene)}" if scene else address)
    with listener:
        server.serve_forever()
    # A thread that is cut off inside PyTorch would end the process with a complaint.
    jobs.close()
    traffic.wait_until_still()
    warming.join()


class _Traffic:
    """Counts the requests that are under way."""

    def __init__(self, application: Flask) -> None:
        self._count = 0
        self._changed = Condition()
        application.before_request(lambda: self._add(1))
        application.teardown_request(lambda error: self._add(-1))

    def _add(self, difference: int) -> None:
        with self._changed:
            self._count += difference
            self._changed.notify_all()

    def wait_until_still(self) -> None:
        """Return once there are none."""
        with self._changed:
            self._changed.wait_for(lambda: self._count <= 0, timeout=_PATIENCE)


def _warm_up(scene: Scene, cancelled: Callable[[], bool]) -> None:
    """Make PyTorch load now what it loads at the first solve."""
    with suppress(CancelledError):
        answers(scene, cancelled)


def listener_at(host: str, port: int) -> socket.socket:
    """Return a socket that listens at the first free port."""
    if not 0 <= port <= 65535:
        raise OSError(f"port must be from 0 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + PORTS_TRIED, 65535) + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise OSError(f"cannot listen at {host}, port {candidate}: {error.strerror or error}") from error
        else:
            return listener
    raise OSError(f"ports {port} to {min(port + PORTS_TRIED, 65535)} of {host} are all taken")


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
