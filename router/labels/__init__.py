"""Certificates from few labels: which rows to label, what they prove, what more of them would be worth."""
