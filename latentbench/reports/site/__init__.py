"""The report site: pages from records, which work from a file and on any static host."""
