"""Who may call a replica's gRPC server: on one machine HAProxy alone, though it listens everywhere."""

from __future__ import annotations

GRPC_FROM = "SLUICE_GRPC_FROM"
LOOPBACK = "loopback"
"""Environment variable and its value where HAProxy and replicas are on one machine."""
LOOPBACK_PEERS = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "ipv6:[::ffff:127.", "ipv6:%5B::ffff:127.")
"""How gRPC writes such addresses, to begin with."""
