"""The command `sluice`: one module per sub-command, wiring only."""
