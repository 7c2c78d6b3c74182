"""What other libraries do not promise: private names, and names that changed between the releases we support.

Nothing else in the package touches a private name of another library. Each function here says which library and which
release it depends on, and what breaks without it. ``tests/compat`` has a test for each, which names what changed.
"""
