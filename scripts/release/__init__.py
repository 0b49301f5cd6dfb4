"""What scripts/release_model.py is made of."""
