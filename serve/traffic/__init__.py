"""Traffic shares: canaries that answer some requests, shadows that see a copy, and what both are worth."""
