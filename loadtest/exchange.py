"""The files that pass between the runner and the generator: what to send when, and what came back.

The generator runs in a process of its own (gevent patches its whole process), so both sides meet in one
temporary folder: `order.json` and `send.npz` go in, `samples.npz` comes out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NEVER_SENT = -9
TIMED_OUT = -1
NO_ANSWER = 0


@dataclass(frozen=True)
class Order:
    """How to send.

    Attributes:
        host, port, tls: where the server listens.
        head: request line and headers, up to but without Content-Length.
        name: what Locust calls these requests.
        timeout_s: longest time from the intended send to the last byte of the answer.
        connections: most sockets open at once.
        warmup: how many of the first arrivals are not measured.
        stop_after_misses: stop when more than this many measured arrivals have missed `miss_ms`.
    """

    host: str
    port: int
    tls: bool
    head: str
    name: str
    timeout_s: float
    connections: int
    warmup: int
    miss_ms: float | None
    stop_after_misses: int | None

    def write(self, folder: Path) -> None:
        """Write `order.json`."""
        (folder / "order.json").write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> Order:
        """Read `order.json`."""
        return cls(**json.loads((folder / "order.json").read_text("utf-8")))


@dataclass(frozen=True)
class Send:
    """What to send: arrival times [N] in seconds from the start, which body [N], the bodies."""

    at_s: NDArray[np.float64]
    which: NDArray[np.int64]
    bodies: tuple[bytes, ...]

    def write(self, folder: Path) -> None:
        """Write `send.npz`."""
        data, ends = pack(self.bodies)
        np.savez(folder / "send.npz", at_s=self.at_s, which=self.which, data=data, ends=ends)

    @classmethod
    def read(cls, folder: Path) -> Send:
        """Read `send.npz`."""
        with np.load(folder / "send.npz") as file:
            return cls(file["at_s"], file["which"], unpack(file["data"], file["ends"]))


@dataclass(frozen=True)
class Samples:
    """What came back, one row per arrival [N]; times in seconds from `start_at_s` (since the epoch).

    Attributes:
        status: HTTP status, or NO_ANSWER, TIMED_OUT, NEVER_SENT.
        replies: [N] bodies of the answers, empty where there was none.
        cpu_share: CPU time of the generator over the measured part, as a share of one core.
        stopped_early: whether `stop_after_misses` ended it.
    """

    start_at_s: float
    intended: NDArray[np.float64]
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    status: NDArray[np.int32]
    replies: tuple[bytes, ...]
    cpu_share: float
    stopped_early: bool

    def write(self, folder: Path) -> None:
        """Write `samples.npz`."""
        data, ends = pack(self.replies)
        np.savez(
            folder / "samples.npz", intended=self.intended, sent=self.sent, done=self.done,
            status=self.status, data=data, ends=ends,
            scalars=np.array([self.start_at_s, self.cpu_share, self.stopped_early]),
        )  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> Samples:
        """Read `samples.npz`."""
        with np.load(folder / "samples.npz") as file:
            start, cpu, stopped = file["scalars"].tolist()
            replies = unpack(file["data"], file["ends"])
            return cls(
                start_at_s=start,
                intended=file["intended"],
                sent=file["sent"],
                done=file["done"],
                status=file["status"],
                replies=replies,
                cpu_share=cpu,
                stopped_early=bool(stopped),
            )


def pack(items: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return byte strings as one array and where each ends."""
    ends = np.cumsum([len(item) for item in items], dtype=np.int64)
    return np.frombuffer(b"".join(items), dtype=np.uint8), ends


def unpack(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> tuple[bytes, ...]:
    """Return what `pack` was given."""
    whole = data.tobytes()
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return tuple(whole[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
