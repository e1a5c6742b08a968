"""The guard's verdict, until ``neuro_latent_client.guard.rejects`` of issue 13 is there: then this module goes."""

from neuro_latent_client import guard
from neuro_latent_client.form import Form


def rejects(raw: str, text: str, form: Form) -> str:
    """Why a text must not be served, "" where it may: a complement or a whole rewrite, as the form says."""
    if guard.is_degenerate(text):
        return "loop"
    if form == "rewrite" and guard.guard(raw, text).verdict != "kept":
        return "lost or changed"
    return ""
