"""An OCI registry: its client, uploads, names, logins."""
