"""The life of a cell: from a composed config to a record."""
