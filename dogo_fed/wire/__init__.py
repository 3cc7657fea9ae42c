"""The one .proto, its generated code, and the code that encodes, decodes and checks messages."""
