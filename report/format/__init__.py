"""How figures, tables, charts and documents are written."""
