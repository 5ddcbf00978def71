"""Harm to a gateway under load. A package, so that its gateway ends with its last test."""
