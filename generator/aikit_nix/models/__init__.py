"""The models of a project: pinned, brought, hashed."""
