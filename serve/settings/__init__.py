"""What an operator can set, in frozen records: read once, handed to every part as values."""
