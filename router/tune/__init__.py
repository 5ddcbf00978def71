"""From predictions, costs and targets to a policy: search, certificates, explanation."""
