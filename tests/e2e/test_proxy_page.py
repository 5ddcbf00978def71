"""The proxy's page, typed as it stands: from a stand-in and nothing else to savings, in ten commands."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, Sluice, wait_ready
from tests.ports import free_port
from tests.support.pages import blocks

PAGE = REPOSITORY / "docs" / "proxy.md"


@dataclass
class Reader:
    """Someone who types what the page says, on ports of their own, against a quicker stand-in."""

    sluice: Sluice
    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: {p: free_port() for p in ("9000", "8000", "8001")})
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def here(self, text: str) -> str:
        """Return a line of the page with this reader's ports, and a quicker stand-in."""
        for port, own in self.ports.items():
            text = re.sub(rf"(:|--port ){port}\b", rf"\g<1>{own}", text)
        return text.replace("--delay-ms 300", "--delay-ms 20")

    def url(self, port: str) -> str:
        """Return where a server of the page answers."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def types(self, line: str) -> str:
        """Type one command, what goes on running in a terminal of its own, and return what it prints."""
        words = self.here(line)
        if words.startswith("sluice proxy --"):
            words = words.replace(" &", f" --port {self.ports['8000']} --admin-port {self.ports['8001']} &")
        if words.startswith(("sluice family", "sluice policy")):
            words += f" --admin-url {self.url('8001')}"
        if words.endswith("&"):
            command = Sluice(self.sluice.executable, self.folder, self.sluice.mark)
            self.running.append(command.start(*words.removesuffix("&").split()[1:]))
            return ""
        return self.sluice.shell(words, self.folder, timeout_s=120)

    def standing(self) -> dict[str, Any]:
        """Return where the proxy stands."""
        found: dict[str, Any] = json.loads((self.folder / "demo-proxy" / "proxy.json").read_text())
        return found

    def watches(self, *phases: str, here: float = 0) -> dict[str, Any]:
        """Return once the proxy is in one of these phases, and has counted so many answers given here."""
        proxy = self.running[-1]
        for _ in range(450):
            assert proxy.poll() is None, proxy.communicate()[1][-4000:]
            found = self.standing()
            if found["phase"] in phases and found["today"]["here"] >= here:
                return found
            with suppress(subprocess.TimeoutExpired):
                proxy.wait(0.2)
        logs = "".join(log.read_text()[-3000:] for log in (self.folder / "demo-proxy" / "logs").glob("*.log"))
        pytest.fail(f"{self.standing()}\n{logs}")

    def leaves(self) -> list[int]:
        """Press Ctrl-C in every terminal, the last first, and return the exit codes."""
        codes = []
        for process in reversed(self.running):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            codes.append(process.returncode)
        return codes


@pytest.mark.e2e
@pytest.mark.ray
def test_every_command_of_the_proxy_page_works(alone: Sluice, tmp_path: Path) -> None:
    """A stand-in, a proxy and an application get from passing on to a certified policy that saves money."""
    reader, printed = Reader(alone, tmp_path), {}
    (application,) = blocks(PAGE, "python")
    (tmp_path / "app.py").write_text(reader.here(application))
    typed = [line for line in blocks(PAGE, "sh")[0].splitlines() if line and not line.startswith("#")]
    assert len(typed) == 10
    codes: list[int] = []
    try:
        for line in typed:
            printed[line] = reader.types(line)
            if line.startswith("sluice proxy --"):
                wait_ready(reader.running[-1], reader.url("8000"))
            elif line.startswith("sluice collect"):
                reader.watches("shadow", "canary", "full")
            elif line == "python app.py 2000 6000":
                at = 6000
                while reader.standing()["phase"] != "full" and at < 20_000:
                    reader.types(f"python app.py {at} {at + 1000}")
                    at += 1000
                reader.types(f"python app.py {at} {at + 500}")
        ended = reader.watches("full", here=400)
        paid = json.loads(urllib.request.urlopen(f"{reader.url('9000')}/spending").read())
    finally:
        codes = reader.leaves()

    assert codes == [0, 0]
    assert alone.leftovers() == []
    assert "collecting" in printed["sluice proxy status --out demo-proxy"]
    assert "enough to compress and tune: yes" in next(
        out for line, out in printed.items() if line.startswith("sluice collect status")
    )
    assert "answers" in printed["sluice family list"]
    assert ended["certificate"].startswith("certified: at most 10.0%")
    saved = next(out for line, out in printed.items() if "sluice_saved_usd_total" in line)
    assert "sluice_saved_usd_total" in saved
    asked = ended["today"]["here"] + ended["today"]["elsewhere"]
    assert paid["questions"] < asked
