"""The command `sluice`: one module per sub-command, wiring only."""

from sluicegate.own_packages import put_first

put_first()
