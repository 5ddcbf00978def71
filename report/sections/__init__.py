"""The sections of a report, each from one kind of input."""
