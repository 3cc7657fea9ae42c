"""The coordinator's side of the exchange: its calls, its gRPC service, and the owner of both."""
