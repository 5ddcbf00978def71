"""The torch networks, where their weights come from, and what all of them offer to the rest."""
