"""Overload: which queue serves best, simulated, and what the gateway does at several times its capacity."""
