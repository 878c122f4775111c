"""Backends in other frameworks, written from the documents alone, for the conformance kit to judge."""
