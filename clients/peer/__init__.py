"""Any peer, anywhere: its link to the coordinator, and its way from an assignment to its end."""
