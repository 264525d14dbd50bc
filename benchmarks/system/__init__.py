"""What a whole run costs and withstands: `python -m benchmarks.system.NAME --help`; on a GPU: `make gpu`."""
