"""Every peer has a virtual environment of its own, made once, with pinned packages."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

MODEL = ("onnxruntime==1.32.0", "tokenizers==0.23.3", "numpy==2.4.6")
PACKAGES: dict[str, tuple[str, ...]] = {
    "fastapi": ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", *MODEL),
    "litserve": ("litserve==0.2.19", *MODEL),
    "mlserver": ("mlserver==1.7.1", "uvloop==0.21.0", *MODEL),
    "bentoml": ("bentoml==1.4.40", *MODEL),
    "shad0w": ("shad0wllm[torch]==0.4.0", "torch==2.14.1"),
    "openai": ("openai==3.57.0",),
}


def environment(peer: str, folder: Path) -> Path:
    """Return the `bin` of a peer's environment, making it if need be. Raises SystemExit when pip fails."""
    packages = PACKAGES[peer]
    key = hashlib.sha256("\n".join((sys.version, *packages)).encode()).hexdigest()[:12]
    place = folder / f"{peer}-{key}"
    done = place / "complete"
    if not done.exists():
        print(f"making an environment for {peer}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        installed = subprocess.run(
            [str(place / "bin" / "pip"), "install", "--quiet", *packages], check=False, capture_output=True
        )
        if installed.returncode:
            raise SystemExit(
                f"{peer}: pip could not install {', '.join(packages)}:\n{installed.stderr.decode()}"
            )
        done.touch()
    return place / "bin"
