"""Open-loop load with known labels, and the run it leaves on disk. Knows the gateway by HTTP alone."""
