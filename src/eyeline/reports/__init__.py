"""Reports: what happened in a shift, gathered from the result store, as data, as a page to print, and as a table."""
