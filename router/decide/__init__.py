"""What a request and a replay decide alike: scores, the compiled cascade, simulation."""
