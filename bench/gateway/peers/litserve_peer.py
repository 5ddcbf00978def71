"""LitServe: batches across requests in worker processes, HTTP in others.

python litserve_peer.py PORT
"""

import sys
from typing import Any

import litserve
from model import from_environment, setting

BATCH = setting("BATCH", 1)


class Api(litserve.LitAPI):
    """Batches are plain lists of texts."""

    def setup(self, device: Any) -> None:  # noqa: ARG002 - LitServe passes it by name
        """Load the model in a worker."""
        self.model = from_environment()

    def decode_request(self, request, **_: Any) -> str:  # type: ignore[no-untyped-def] # FastAPI would read it
        """Return the text of a request."""
        return str(request["inputs"])

    def batch(self, inputs: list[str]) -> list[str]:
        """Return the batch as it is."""
        return inputs

    def predict(self, x: Any, **_: Any) -> list[dict[str, Any]]:
        """Answer a batch, or one text where there are no batches."""
        return self.model.classify(x if isinstance(x, list) else [x])

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers as they are."""
        return output

    def encode_response(self, output: Any, **_: Any) -> dict[str, Any]:
        """Return the reply to one request."""
        return {"outputs": output if isinstance(output, list) else [output]}


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.0 if BATCH == 1 else 0.001, api_path="/v1/classify")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=setting("WORKERS", 1), fast_queue=bool(setting("FAST", 0))
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=setting("API_SERVERS", 1),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
