"""The audit: what is recorded is sealed in blocks, and anybody can check it with one file (docs/audit.md)."""
