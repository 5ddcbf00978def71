"""The wire forms: bytes to requests and results to bytes, nothing else."""
