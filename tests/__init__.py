"""The tests, and benchmarks that are run by hand."""
