"""The gateway on Ray Serve: deployments, replicas, and the application that a cluster names."""
