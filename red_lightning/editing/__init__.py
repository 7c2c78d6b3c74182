"""Edit a frozen backbone: find sites, attach and detach editors, merge edits, and keep many edits in one batch."""
