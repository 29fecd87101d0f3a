"""What graphwd costs beside the other ways, measured side by side on the reader's machine."""
