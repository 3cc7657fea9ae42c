"""What every peer needs in every host: its link to the coordinator, and the code that runs it."""
