"""The mathematics: similarity distributions, mutual KL, and one file for each objective. Torch only."""
