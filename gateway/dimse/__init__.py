"""DIMSE: associations that are accepted, and those that are opened to peers."""
