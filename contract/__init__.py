"""What the parts agree on: formats, metric names, formulas, reference data and errors. Pure."""
