"""A mix that moves: cells certified at once, and what their bounds say of another mix."""
