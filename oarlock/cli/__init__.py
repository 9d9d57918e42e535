"""The command oarlock."""
