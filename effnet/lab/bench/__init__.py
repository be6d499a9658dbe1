"""Speed, against peers and against the machine's limits. Importing it imports no torch: its processes may need none."""
