"""Where a run's records go: metrics.jsonl, TensorBoard, and the totals of the summary."""
