"""What the errors of the trainer have in common."""


class TrainerError(RuntimeError):
    """Something that the user can fix: the message says how."""
