"""Models over hashed n-grams of texts, in numpy and compiled: the linear stage and the deep table."""
