"""Stages that answer: micro-batched, inside this process or behind a handle, and how they are loaded."""
