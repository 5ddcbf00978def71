"""A gateway to do harm to: `sluice serve` in the foreground, and what is known of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from runtime.fake_faults import FakeFaults
from serve.local.run_folder import MARK
from serve.settings.gateway import Settings
from serve.settings.stages import BatchRules, FakeSettings, StageSettings
from tests.chaos.client import is_whole
from tests.chaos.parts import wait_until
from tests.ports import free_port

HANG_S = 3.0
START_S = 120.0
_SERVE = (
    "import sys; from serve.local import launcher; from serve.settings.gateway import Settings; "
    "launcher.run_until_stopped(Settings.model_validate_json(sys.argv[1]), lambda m: print(m, flush=True))"
)


@dataclass
class House:
    """A running gateway.

    Attributes:
        process: the launcher. folder: of its run. state: of its revisions.
    """

    process: subprocess.Popen[bytes]
    settings: Settings
    folder: Path
    state: Path

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def admin_url(self) -> str:
        """Where policies are pushed."""
        return f"http://127.0.0.1:{self.settings.admin_port}"


@contextmanager
def serving(place: Path, state: Path, environment: dict[str, str]) -> Iterator[House]:
    """Serve fakes: the first inside, the teacher in a process of its own, the third on the shelf.

    The last two do wrong when a text tells them to.
    """
    by_text = FakeFaults(by_text=True, late_s=1.0)
    rules = BatchRules(hang_s=HANG_S)
    settings = Settings(
        fake=FakeSettings(delay_ms=2.0, faults={"fake-large": by_text, "fake-other": by_text}),
        port=free_port(),
        admin_port=free_port(),
        state=str(state),
        stage=StageSettings(batch=rules),
    )
    log = place / "serve.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, settings.model_dump_json()],
            stdout=said,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{settings.port}"
        ready = wait_until(lambda: process.poll() is not None or is_whole(url), START_S)
        assert ready is not None, log.read_text()
        assert process.poll() is None, log.read_text()
        yield House(process, settings, _folder_of(process.pid), state)
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _folder_of(launcher: int) -> Path:
    for child in psutil.Process(launcher).children(recursive=True):
        with suppress(psutil.Error):  # others of its children come and go
            if folder := child.environ().get(MARK):
                return Path(folder)
    raise AssertionError("the gateway has no processes")
