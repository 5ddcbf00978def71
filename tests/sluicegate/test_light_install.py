"""What routing alone needs: light commands load nothing heavy, and others say what to install."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from runtime.fake_family import write_fake_family
from sluicegate.extras import EXTRAS, POSIX_ONLY
from sluicegate.main import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch", "transformers", "ray", "fastapi", "starlette", "uvicorn", "codecarbon", "onnxruntime", "onnx",
    "tokenizers", "locust", "gevent", "datasets", "sklearn", "orjson", "PIL", "mlflow",
)  # fmt: skip

# Runs a command with some modules out of reach, as they are where they were never installed.
WITHOUT = """
import importlib.abc, json, sys
absent = set(json.loads(sys.argv.pop(1)))
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in absent else found(name, package)
sys.meta_path.insert(0, Absent())
sys.argv[0] = "sluice"
try:
    from sluicegate.main import main
    main()
finally:
    print(json.dumps(sorted(absent & set(sys.modules))), file=sys.stderr)
"""

# Runs light commands one after another and says after each what heavy modules are loaded.
LOADED = """
import contextlib, io, json, sys
heavy, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
from sluicegate.main import cli
loaded = {}
for words in commands:
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(words, prog_name="sluice", standalone_mode=False) in (0, None), words
    loaded[" ".join(words[:1] + words[-1:])] = [name for name in heavy if name in sys.modules]
print(json.dumps(loaded))
"""


def _run(code: str, names: tuple[str, ...], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, json.dumps(names), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of fakes and a policy tuned on it, made without any heavy package."""
    folder = tmp_path_factory.mktemp("light")
    write_fake_family(folder)
    done = _run(WITHOUT, HEAVY, "tune", folder, "--max-accuracy-drop", "0.05", "--out", folder / "p.json")
    assert done.returncode == 0, done.stderr
    return folder


def test_light_commands_load_nothing_heavy(family: Path) -> None:
    """Neither Ray, torch, ONNX Runtime nor Locust is imported to tune, replay, inspect, report or help."""
    policy = str(family / "p.json")
    commands = [
        ["--help"], ["--version"], ["tune", str(family), "--compare-scores"], ["inspect", str(family)],
        ["simulate", str(family), "--policy", policy],
        ["report", str(family), "--policy", policy, "--out", str(family / "r.html")],
        *([name, "--help"] for name in COMMANDS),
    ]  # fmt: skip
    done = _run(LOADED, HEAVY, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == {name: [] for name in loaded}


@pytest.mark.parametrize(
    ("arguments", "install"),
    [
        (("serve", "--fake"), "pip install 'sluicegate[serve]'"),
        (("compress", "{}/recipe.yaml", "--out", "{}/out"), "pip install 'sluicegate[cpu,compress]'"),
        (("demo", "--out", "{}/demo"), "pip install 'sluicegate[demo]'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_missing_extra_is_told_in_one_line(
    arguments: tuple[str, ...], install: str, tmp_path: Path
) -> None:
    """A command whose extra is not installed exits 1, says what to install, and leaves nothing behind."""
    (tmp_path / "recipe.yaml").write_text(
        "schema: 1\nname: x\ndata: {train: t.csv, validation: t.csv, test: t.csv}\n"
        "teacher: {weights: here}\nvariants: [{name: linear, kind: linear, parent: teacher}]\n"
    )
    done = _run(WITHOUT, HEAVY, *(word.format(tmp_path) for word in arguments))
    told = done.stderr.splitlines()[:-1]
    assert done.returncode == 1, done.stderr
    assert len(told) == 1, done.stderr
    assert told[0].startswith("error: ")
    assert told[0].endswith(install)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_command_that_needs_posix_says_so() -> None:
    """Where the system has no `fcntl`, as on Windows, serving names the system it needs."""
    done = _run(WITHOUT, ("fcntl",), "serve", "--fake")
    assert done.returncode == 1
    assert "needs Linux or macOS" in done.stderr
    assert "Traceback" not in done.stderr
    assert "fcntl" in POSIX_ONLY


def test_python_m_runs_the_command() -> None:
    """`python -m sluicegate` is `sluice`, for those whose script folder is not on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "sluicegate", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"sluice, version {metadata.version('sluicegate')}\n"


def test_extras_bring_what_the_messages_promise() -> None:
    """Every package that a message sends a user to an extra for is one that the extra installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, plain = project["optional-dependencies"], " ".join(project["dependencies"])
    provided = metadata.packages_distributions()
    for extra, packages in EXTRAS.items():
        first = provided[packages[0]][0].lower().replace("_", "-")
        assert any(line.lower().startswith(first) for line in extras[extra]), extra
    for name in ("ray", "fastapi", "uvicorn", "codecarbon", "tokenizers", "torch", "onnxruntime"):
        assert name not in plain, f"{name} belongs to an extra"
    assert {"serve", "cpu", "gpu", "compress", "images", "mlflow", "loadtest", "demo", "dev"} <= set(extras)
