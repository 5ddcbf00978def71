"""The Open Inference Protocol over gRPC: the same data plane, deadlines and errors as over HTTP."""
