"""What every node sees: bytes under keys on a shared folder or in an object store, and numbered documents."""
