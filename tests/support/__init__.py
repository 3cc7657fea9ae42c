"""What the tests share: what is made up, what starts processes, and the formulas as loops."""
