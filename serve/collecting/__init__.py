"""Keeping what an upstream model answers: read and written off the path of requests."""
