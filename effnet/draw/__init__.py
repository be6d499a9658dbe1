"""A network or a result as a drawing: SVG text, for a page or a file of its own."""
