"""A gateway on this machine: checks, the run folder, Ray's environment, the host process."""
