"""The methods that the suite compares: one file each, each with its yaml in conf/method."""
