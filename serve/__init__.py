"""The gateway on Ray Serve: protocols, data plane, micro-batching, deployments, control and telemetry."""
