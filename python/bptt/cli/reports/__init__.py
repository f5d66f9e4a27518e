"""What the commands show of their results: each report is a file, with its text beside it."""
