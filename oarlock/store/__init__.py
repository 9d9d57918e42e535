"""What lasts: the job table, scores, keys, the audit log, files. Knows no image."""
