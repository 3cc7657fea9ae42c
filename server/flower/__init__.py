"""The ServerApp: the same run, with its peers behind Flower's nodes."""
