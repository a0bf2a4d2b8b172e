"""The command `xai`, a file a command."""
