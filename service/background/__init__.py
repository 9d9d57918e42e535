"""What the service does between calls: sweeping, callbacks."""
