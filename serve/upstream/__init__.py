"""What is asked elsewhere: the decision endpoint that answers what no family here does."""
