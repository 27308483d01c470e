"""HTTP: one client, patient and bounded."""
