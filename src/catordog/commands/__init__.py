"""The commands, a file each: its options, what it calls, and what it prints."""
