"""One file per use: its options, what it calls, and what it prints."""
