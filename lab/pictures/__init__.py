"""`make pictures`: what the command line shows of a real chain, for the README and docs/cli.md."""
