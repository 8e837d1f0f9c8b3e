"""The worker: receive → load → decode → plan → infer → save → acknowledge.

Nothing is imported here: a decoder child is a module of this room and must come up light, and quickly after a kill.
"""
