"""The HTTP application: fast routes in front, the rest and its description behind."""
