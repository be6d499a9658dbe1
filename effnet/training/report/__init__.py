"""The report of a run, an HTML page: course, quality, cost and settings."""
