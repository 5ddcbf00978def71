"""The routing mathematics: scores, cascade decisions, certificates, tuning, replay and live monitoring.

Pure: no clock, no network.
"""
