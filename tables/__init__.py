"""Tables that people bring: labelled files and predictions tables, read in one place for every command."""
