"""The routing mathematics: scores, cascade decisions, certificates, tuning, replay and live monitoring;
pure, no clock.
"""
