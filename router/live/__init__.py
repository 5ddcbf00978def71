"""What watches a policy in force: audits, the alarm, drift, budgets, expiry. No clock."""
