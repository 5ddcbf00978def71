"""Who may ask, and how much: keys, rate limits and daily quotas. Knows no protocol."""
