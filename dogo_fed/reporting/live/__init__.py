"""What a run shows while it trains: a table in a terminal, log lines everywhere else."""
