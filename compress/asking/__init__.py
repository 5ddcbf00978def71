"""Asking a teacher behind HTTP for labels: what is known, what the rest costs, and how it is asked."""
