"""Finished steps are whole or absent, whatever interrupts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.code_version import code_version
from compress.store import Store
from contract.errors import EnvironmentProblem

KEY = "a" * 64


def finish(store: Store, key: str = KEY, content: str = "hello") -> None:
    """Finish one step that has one file."""
    with store.working_folder("student", key) as folder:
        (folder / "model.bin").write_text(content)
        store.finish("student", key, folder, {"x": 1}, {"seconds": 0.5})


def test_a_finished_step_is_found_again(tmp_path: Path) -> None:
    """Result, cost and file hashes come back, and the digest with them."""
    store = Store(tmp_path)
    finish(store)
    found = store.find("student", KEY)
    assert found is not None
    assert found.result == {"x": 1}
    assert found.file("model.bin").read_text() == "hello"
    again = Store(tmp_path).find("student", KEY)
    assert again is not None
    assert again.digest == found.digest


def test_another_key_is_not_found(tmp_path: Path) -> None:
    """What was made from other inputs is not reused."""
    store = Store(tmp_path)
    finish(store)
    assert store.find("student", "b" * 64) is None


def test_an_altered_or_torn_step_is_not_found(tmp_path: Path) -> None:
    """A file that changed, or a record that is no JSON, means the step is run again."""
    store = Store(tmp_path)
    finish(store)
    (folder,) = tmp_path.glob("student@*")
    (folder / "model.bin").write_text("HELLO")
    assert store.find("student", KEY) is None
    (folder / "model.bin").write_text("hello")
    assert store.find("student", KEY) is not None
    (folder / "step.json").write_text(json.dumps({"key": KEY})[:-3])
    assert store.find("student", KEY) is None


def test_an_interrupted_step_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while a step writes leaves no file of it."""
    store = Store(tmp_path)

    def interrupted() -> None:
        with store.working_folder("student", KEY) as folder:
            (folder / "model.bin").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    """A working folder that outlived its process goes when the store is next locked."""
    (tmp_path / ".working-student-aaaa").mkdir()
    (tmp_path / ".working-student-aaaa" / "half.bin").write_text("half")
    with Store(tmp_path).locked():
        assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_newer_result_replaces_the_older(tmp_path: Path) -> None:
    """Only the newest result of a step stays; steps whose names begin alike stay too."""
    store = Store(tmp_path)
    finish(store)
    with store.working_folder("student-int8", KEY) as folder:
        store.finish("student-int8", KEY, folder, {}, {"seconds": 0})
    finish(store, key="b" * 64)
    assert store.find("student", KEY) is None
    assert store.find("student", "b" * 64) is not None
    assert store.find("student-int8", KEY) is not None


def test_two_builders_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second builder is told so at once."""
    with (
        Store(tmp_path).locked(),
        pytest.raises(EnvironmentProblem, match="another process"),
        Store(tmp_path).locked(),
    ):
        pass


def test_code_version_sees_code_and_not_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, docstrings and layout leave the version; a changed figure does not."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "toy_step_module.py"
    path.write_text('"""One."""\n\n\ndef f(x):\n    """Two."""\n    return x + 1\n')

    def version() -> str:
        code_version.cache_clear()
        return code_version(("toy_step_module",))

    first = version()
    path.write_text('"""Other words."""\ndef f(x):\n    # why\n    return (x + 1)\n')
    assert version() == first
    path.write_text("def f(x):\n    return x + 2\n")
    assert version() != first
