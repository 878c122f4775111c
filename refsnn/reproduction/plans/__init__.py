"""Plans for `refsnn reproduce`, as TOML files."""
