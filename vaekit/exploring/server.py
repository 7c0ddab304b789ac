"""The server of the page: on this machine only, and with nothing kept when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import torch

from vaekit.errors import VaekitError
from vaekit.run import Run

__all__ = ["guarded", "listening_socket", "serve"]

_HOST = "127.0.0.1"
_PORTS = range(7860, 7960)

# The browser itself refuses whatever would leave this machine.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' blob:; frame-ancestors 'none'"
)


def serve(run: Run, port: int | None, browse: bool, announce: Callable[[str], None]) -> None:
    """Serve the page of a run until Ctrl-C or SIGTERM.

    Arguments:
        run: The run, with its weights.
        port: The port; the first free one from 7860 on if not given.
        browse: Whether to open the page in the user's browser.
        announce: Called with the address.

    Raises:
        VaekitError: gradio is not installed, the port is taken, or the run cannot be looked into.
    """
    with _private_folder() as folder, listening_socket(port) as listening:
        # Read by gradio when it is imported: no reports to its makers, nothing kept in the browser.
        os.environ.update(
            GRADIO_ANALYTICS_ENABLED="False",
            GRADIO_RUN_HISTORY="False",
            GRADIO_TEMP_DIR=folder,
            HF_HUB_OFFLINE="1",
            HF_HUB_DISABLE_TELEMETRY="1",
        )
        application = _application(run)
        import uvicorn

        torch.seed()  # torch begins with the same random state every time.

        address = f"http://{_HOST}:{listening.getsockname()[1]}"
        announce(address)
        if browse:
            # A browser in the terminal would not return before it is closed.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(application, log_level="critical", timeout_graceful_shutdown=1)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def listening_socket(port: int | None = None) -> socket.socket:
    """Return a socket that listens on this machine alone.

    Arguments:
        port: The port; the first free one of 7860 to 7959 if not given.

    Raises:
        VaekitError: The port is taken or may not be used.
    """
    for number in _PORTS if port is None else (port,):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, number))
            listening.listen()
        except OSError:
            listening.close()
            continue
        return listening
    if port is None:
        raise VaekitError(f"the ports {_PORTS[0]} to {_PORTS[-1]} are all taken: name a free one with --port")
    raise VaekitError(f"the port {port} is taken or may not be used: name another with --port")


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """Make a folder for uploads that is gone when the server ends, by a signal too."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with tempfile.TemporaryDirectory(prefix="vaekit-explore-") as folder:
            yield folder
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _application(run: Run) -> Any:
    """Return the page as an ASGI application."""
    try:
        import gradio as gr
    except ImportError as error:
        raise VaekitError('the page needs gradio: pip install "vaekit[explore]"') from error
    from fastapi import FastAPI

    from vaekit.exploring.markup import STYLE
    from vaekit.exploring.page import build_page, explorer_of

    page = build_page(explorer_of(run))
    page.queue(default_concurrency_limit=1)
    # Fonts of this machine, by name; the themes of gradio ask a font host.
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    application = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        server_name=_HOST,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(primary_hue="blue", **fonts),
        css=STYLE,
    )
    return guarded(application)


def guarded(application: Any) -> Any:
    """Return an ASGI application that answers its own page alone, and whose answers ask no other host.

    Arguments:
        application: The application.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A page of another host that names this machine as its own is not answered.
    return _with_policy(_for_itself(TrustedHostMiddleware(application, allowed_hosts=[_HOST, "localhost"])))


def _for_itself(application: Any) -> Any:
    """Return an ASGI application that answers its own page alone, and no request that another page makes."""
    from starlette.responses import PlainTextResponse

    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        said = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", [])}
        foreign = said.get("origin") not in (None, f"http://{said.get('host')}")
        # A link that leads here may be followed; nothing else comes from another page.
        elsewhere = said.get("sec-fetch-site") in ("cross-site", "same-site")
        embedded = elsewhere and said.get("sec-fetch-mode") != "navigate"
        if scope["type"] in ("http", "websocket") and (foreign or embedded):
            await PlainTextResponse("this page answers itself alone", 403)(scope, receive, send)
        else:
            await application(scope, receive, send)

    return wrapper


def _with_policy(application: Any) -> Any:
    """Return an ASGI application whose every answer forbids the browser to ask another host."""

    async def wrapper(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        async def tagged(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await application(scope, receive, tagged)

    return wrapper
