"""`python -m sluicegate`: the command `sluice` where its script is not on the path."""

from sluicegate.main import main

if __name__ == "__main__":
    main()
