"""What a variant answers to held-out texts, how good that is, and what it costs on this machine."""
