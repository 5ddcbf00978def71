"""Labelled texts and images: read from any source, checked, and divided into splits."""
