"""From an upload to a job: bodies, archives, submission."""
