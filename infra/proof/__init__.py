"""Proof that the log is whole and unchanged: leaves, a Merkle tree over them, signed notes."""
