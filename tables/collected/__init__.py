"""Collected questions and answers on disk: parts, rules, retention."""
