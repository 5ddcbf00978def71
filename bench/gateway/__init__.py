"""The gateway beside other servers of the same model, each at its best settings, in one run."""
