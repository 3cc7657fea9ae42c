"""The one .proto, its generated code, and the only code that encodes, decodes and checks messages."""
