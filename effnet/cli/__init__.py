"""Command line interface: one file per command, `effnet.cli.app` puts them together."""
