"""A Ray cluster of several machines in network namespaces, and what an operator does with it."""
