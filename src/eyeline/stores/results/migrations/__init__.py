"""The history of the results database, one file a step in `versions/`."""
