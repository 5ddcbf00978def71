"""The data plane: what every protocol asks, and which stage answers."""
