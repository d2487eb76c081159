"""The small commands of `ise-fast`: one module each, with `main(argv) -> exit status`."""
