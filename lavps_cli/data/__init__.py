"""Pictures for training: where they come from, how they are kept, and batches of them."""
