"""The queue face: takes a job's id from the queue and walks its series through. Knows nothing of HTTP."""
