"""Whatever takes weights away: heads, neurons, channels, words, single weights, to a latency or a size."""
