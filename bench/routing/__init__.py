"""Routing measured on public replay tables.

`python -m bench.routing --data DIR` writes docs/benchmarks/routing.md.
"""
