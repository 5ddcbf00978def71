"""The front end: where HAProxy listens for clients, and how its configuration comes to say so."""
