"""The command line: parse, call, print. One file a verb; nothing is decided here."""
