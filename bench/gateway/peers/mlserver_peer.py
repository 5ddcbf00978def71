"""MLServer: a custom runtime of the Open Inference Protocol with its adaptive batching."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from model import Model, from_environment


class Runtime(MLModel):
    """Answers with two outputs, label and confidence."""

    model: Model

    async def load(self) -> bool:
        """Load the model in this process."""
        self.model = from_environment()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request, which adaptive batching may have put together of several."""
        texts = StringCodec.decode_input(payload.inputs[0])
        answers = self.model.classify(texts)
        shape = [len(texts), 1]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(
                    name="label", shape=shape, datatype="BYTES", data=[a["label"] for a in answers]
                ),
                ResponseOutput(
                    name="confidence", shape=shape, datatype="FP32", data=[a["confidence"] for a in answers]
                ),
            ],
        )
