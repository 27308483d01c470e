"""The commands: wiring and printing, no logic. cli.py knows which module has which command."""
