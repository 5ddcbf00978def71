"""Decisions: how many are answered without the large model, at which certificate and cost, beside a rival."""
