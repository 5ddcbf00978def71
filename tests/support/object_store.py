"""An S3-compatible store for tests: moto's server, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET = "sluicegate"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_REGION": "us-east-1",
}
_SERVER = """
import sys, httpx
from moto.server import ThreadedMotoServer
host, port, bucket, region = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
server.start()
signed = f"AWS4-HMAC-SHA256 Credential=tests/20260101/{region}/s3/aws4_request"
url = f"http://{host}:{port}/{bucket}"
httpx.put(url, headers={"Authorization": signed}, trust_env=False).raise_for_status()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def object_store(host: str, port: int, prefix: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Serve a store with one empty bucket; give the environment in which clients find it.

    It ends with the process that asked for it.

    Args:
        host: address to listen on.
        port: a free one there.
        prefix: of the command, such as `ip netns exec NAME`.
    """
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", _SERVER, host, str(port), BUCKET, CREDENTIALS["AWS_REGION"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n", "the store did not start"
            yield {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **CREDENTIALS}
        finally:
            process.kill()
