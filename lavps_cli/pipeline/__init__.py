"""What commands run: names, paths and numbers in; results out."""
