"""The coordinator's side: its service, the hosts that start peers, the commands. No mathematics."""
