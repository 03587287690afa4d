"""One module per operation. Each takes a policy, a request and its surroundings; returns a RunResult."""
