"""What is worked out of runs and prices: estimates, economics, options, the decision."""
