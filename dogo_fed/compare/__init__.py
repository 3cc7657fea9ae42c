"""Did it help? Cells of an experiment, paired differences over seeds, and the table of the answer."""
