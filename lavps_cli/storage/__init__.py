"""Files by URL, through fsspec: read, listed, and written whole or not at all."""
