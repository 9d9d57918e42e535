"""Models that others trained, taken over into model folders and compared with their own runtimes."""
