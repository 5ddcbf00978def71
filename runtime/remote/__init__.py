"""Models behind HTTP: how they are asked, what their replies say, and what they cost. No weights here."""
