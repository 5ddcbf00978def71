"""The search for recipes: candidates, tried briefly, and the best of them made in full."""
