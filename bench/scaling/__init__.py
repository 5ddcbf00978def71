"""Whether a gateway takes more replicas under load and gives them back after, without losing a request."""
