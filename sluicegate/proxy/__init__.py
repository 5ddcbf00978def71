"""`sluice proxy`: from passing everything on to answering most of it here, one step after the other."""
