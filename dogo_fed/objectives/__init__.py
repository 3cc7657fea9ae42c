"""The mathematics in torch: similarity distributions, mutual KL, one file for each objective."""
