"""The JSON behind each page, a file a page."""
