"""What everything else stands on: errors, messages, files, programs, formats."""
