"""The compression benchmark: one family per seed from a public data set, and the page of what they show."""
