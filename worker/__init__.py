"""The queue face: takes a job's id from the queue and contours its series. Knows no HTTP."""
