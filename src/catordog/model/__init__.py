"""A network that gives raw logits, the file it travels in, and what runs it."""
