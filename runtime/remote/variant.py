"""A variant behind HTTP as the rest of the house runs variants: texts in, logits out."""

from __future__ import annotations

from contract.errors import FamilyError
from contract.remote import RemoteModel
from runtime.api import Encoded, Logits
from runtime.remote.client import SyncClient
from runtime.remote.record import REMOTE_SHA256, TEXTS


class RemoteRuntime:
    """Asks the model for every call. Gateways ask it otherwise: see serve.stages.http."""

    def __init__(self, model: RemoteModel, labels: tuple[str, ...]) -> None:
        self._client = SyncClient(model, labels)
        self._classes = len(labels)

    def logits(self, encoded: Encoded) -> Logits:
        """Return float32 logits [N, C].

        Raises:
            FamilyError: when another encoder made the input.
            RemoteFailure: no answer came.
        """
        if encoded.encoder != REMOTE_SHA256:
            raise FamilyError("the texts were encoded for another variant: encoder hashes differ")
        return self._client.ask([str(text) for text in encoded.arrays[TEXTS]]).logits(self._classes)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
