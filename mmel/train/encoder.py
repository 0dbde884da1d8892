"""Whether two runs have the same text encoder."""

from mmel.grids import TINY_BERT
from mmel.models import ModelError
from mmel.records import Line


def check_encoder(own: Line, other: Line) -> None:
    """Refuse to go on with, or to be taught by, what another encoder of the same name has left.

    A folder's name is all that a run's name says of its encoder.

    Args:
        own: the provenance of a run, or its header.
        other: the header of a recorded run.

    Raises:
        ModelError: if the two encoders differ.
    """
    mine, found = (header.get("text_model", {}) for header in (own, other))
    digests = [model.get("embeddings") for model in (mine, found)]
    # `tiny-bert` is made in each results folder, and on another machine not to the last bit.
    if all(digests) and digests[0] != digests[1] and mine["name"] != TINY_BERT:
        raise ModelError(
            f"this results folder holds runs of another encoder named {mine['name']!r} (digest of its embeddings "
            f"{digests[1][:12]}, of those at hand {digests[0][:12]}): rename the folder of one, or take another "
            "results folder"
        )
