"""The command line, one file per command. Nothing slow is imported before a command runs."""
