"""What the parts of the gateway hand each other: requests, results, stages, snapshots, records."""
