"""For every test: one thread per worker, who runs beside whom, how many draws, and what each test costs."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

# Each worker has one core; set before any library reads it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.support.machine_lock import lock_of_this_run
from tests.support.simulations import FEW, FULL
from tests.support.spent import Spent

# These machines are shared: how long an example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP, and children inherit that.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

TURNS = lock_of_this_run()
SERIAL = "timing, ray"
# The longest first, so that no worker is left alone with them at the end.
ORDER = (SERIAL, "tests/compress/", "tests/e2e/", "tests/router/", "tests/sluicegate/")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that asks for every simulation."""
    parser.addoption(
        "--simulations",
        action="store_true",
        help=f"run only the simulations: {FULL} draws in place of {FEW}, and what is too long for each run",
    )
    parser.addoption("--cluster", action="store_true", help="run tests/cluster, on a cluster of three nodes")
    parser.addoption("--chaos", action="store_true", help="run every case of tests/chaos at its full length")


def pytest_configure(config: pytest.Config) -> None:
    """Measure in every process; the one that tells results sums up."""
    config.pluginmanager.register(Spent(), "spent")


def _group(item: pytest.Item) -> str:
    """Return the tests that one worker runs together: what measures time or owns Ray, else a file.

    On a worker of their own, tests of time would wait for the gateway that starts on the other.
    """
    timed, on_ray, beside = (item.get_closest_marker(name) for name in ("timing", "ray", "beside"))
    return SERIAL if timed or (on_ray and not beside) else item.nodeid.split("::")[0]


def _place(item: pytest.Item) -> tuple[int, bool, str, bool]:
    """Return the place of a test in the order: by its group, those of time before those on Ray.

    Of those on Ray a folder's own gateways come and go before the one that its tests share is started: a
    gateway that nobody asks takes time from those that are tested.
    """
    group = _group(item)
    place = next((i for i, start in enumerate(ORDER) if group.startswith(start)), len(ORDER))
    untimed = item.get_closest_marker("timing") is None
    if group != SERIAL:
        return place, untimed, "", False
    folder = "/".join(item.nodeid.split("/")[:2])
    return place, untimed, folder, "gateway" in getattr(item, "fixturenames", ())


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group the tests by what they share, longest first, and keep the simulations that were asked for."""
    whole = config.getoption("--simulations")
    asked = {name: config.getoption(f"--{name}") for name in ("chaos", "cluster")}
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        long = item.get_closest_marker("simulations") is not None
        simulated = long or "draws" in getattr(item, "fixturenames", ())
        wanted = simulated if whole else not long
        wanted = wanted and all(asked[name] or item.get_closest_marker(name) is None for name in asked)
        (kept if wanted else left).append(item)
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    if left:
        config.hook.pytest_deselected(items=left)
    items[:] = sorted(kept, key=_place)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Run tests of time while no other worker runs anything, all that follow each other in one turn."""
    if TURNS is None:
        return (yield)
    timed, timed_next = (
        test is not None and test.get_closest_marker("timing") is not None for test in (item, nextitem)
    )
    TURNS.take(alone=timed)
    try:
        return (yield)
    finally:
        if not (timed and timed_next):
            TURNS.leave()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name packed bytes by their length: what holds a time would name a test anew in every process."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def draws(request: pytest.FixtureRequest) -> int:
    """How many draws a simulation takes in this run: 10, or 200 with --simulations."""
    return FULL if request.config.getoption("--simulations") else FEW
