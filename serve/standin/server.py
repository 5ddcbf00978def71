"""The server of a stand-in: in the foreground for people, in a thread for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from contract.errors import EnvironmentProblem
from serve.standin.answerer import Answerer
from serve.standin.app import StandIn, make_app
from serve.standin.settings import StandInSettings


@dataclass(frozen=True)
class Running:
    """A stand-in that answers.

    Attributes:
        url: of its root; clients of OpenAI's kind want `url` + "/v1".
        state: its counts, among others.
    """

    url: str
    state: StandIn


def run(folder: Path, settings: StandInSettings, said: Callable[[str], None] = lambda _: None) -> None:
    """Serve a family in the foreground until SIGINT or SIGTERM.

    Args:
        folder: of the family.
        settings: how.
        said: told in words where it answers, once it does.

    Raises:
        FamilyError, EnvironmentProblem: the family cannot be loaded; the address is taken.
    """
    standin, listener, server = _made(folder, settings)
    said(f"{standin.answerer.name} ({standin.answerer.loaded.name}) answers at {_url(listener)}")
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again that ended it
        server.run([listener])


@contextmanager
def serving(folder: Path, settings: StandInSettings | None = None) -> Iterator[Running]:
    """Serve a family in a thread of this process; raises as `run`."""
    standin, listener, server = _made(folder, settings or StandInSettings(port=0))
    thread = threading.Thread(target=server.run, args=([listener],), name="stand-in", daemon=True)
    thread.start()
    try:
        yield Running(_url(listener), standin)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _made(folder: Path, settings: StandInSettings) -> tuple[StandIn, socket.socket, uvicorn.Server]:
    standin = StandIn(Answerer.load(folder, settings.variant, threads=settings.threads), settings)
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as problem:
        listener.close()
        raise EnvironmentProblem(
            f"{settings.host}:{settings.port} cannot be listened on: {problem}", hint="--port with another"
        ) from None
    listener.listen(512)
    config = uvicorn.Config(
        make_app(standin), lifespan="off", access_log=False, log_config=None, server_header=False
    )
    return standin, listener, uvicorn.Server(config)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
