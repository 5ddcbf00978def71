"""Control: revisions of what is served, how replicas follow them, and the admin interface."""
