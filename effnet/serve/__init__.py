"""HTTP server: a prediction API and a web page. Importing it imports neither PyTorch nor a web framework."""
