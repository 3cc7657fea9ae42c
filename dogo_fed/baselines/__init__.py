"""What people would use instead of DoGo where images are private, for comparison on one machine.

Each method is one file, with its paper, its equations, and what differs from the published code.
They run on the same images, views, updates and sessions as DoGo. In these methods weights or
embeddings of a site go to a server, which DoGo never does. So they exist for peers that live in one
process, and for nothing else.
"""
