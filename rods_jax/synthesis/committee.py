"""Several reviewers decide together (APIGen-MT, arXiv 2504.03601): a reviewer of reviewers.

    roles._replace(judge=committee([strict.judge, lenient.judge, roles.judge], quorum=2))      # in the five stages

A reviewer says why it refuses, or None.  One that raises abstains; the kind of its exception is counted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Reviewer = Callable[..., Any]  # (whatever is reviewed) -> a verdict: as a rule why it is refused, or None


class Votes(NamedTuple):
    """How a committee voted."""

    accepted: int
    reasons: tuple[str, ...]  # of those who refuse
    abstained: Counter[str]  # by kind of exception


def _same(verdict: Any) -> Any:
    return verdict


def vote(reviewers: Sequence[Reviewer], *subject: Any, read: Callable[[Any], str | None] = _same) -> Votes:
    """Asks every reviewer about the subject, in order.  read: verdict -> why it is a refusal, or None."""
    accepted, reasons, abstained = 0, list[str](), Counter[str]()
    for reviewer in reviewers:
        try:
            reason = read(reviewer(*subject))
        except Exception as error:
            abstained[getattr(error, "error", type(error).__name__)] += 1  # a Rejected has an error type of its own
        else:
            accepted += reason is None
            reasons += [] if reason is None else [reason]
    return Votes(accepted, tuple(reasons), abstained)


def committee(
    reviewers: Sequence[Reviewer],
    *,
    quorum: int,
    read: Callable[[Any], str | None] = _same,
    say: Callable[[str | None], Any] = _same,
) -> Reviewer:
    """A reviewer that accepts where at least `quorum` of the reviewers do, and else says how they voted and why.

    read, say: from verdicts of another type to why they refuse, or None, and back.  ValueError: the quorum is none of 1
    to the number of reviewers.
    """
    if not 1 <= quorum <= len(reviewers):
        raise ValueError(f"the quorum of {len(reviewers)} reviewers lies between 1 and that: got {quorum}")

    def decide(*subject: Any) -> Any:
        votes = vote(reviewers, *subject, read=read)
        if votes.accepted >= quorum:
            return say(None)
        kinds = ", ".join(f"{kind} {count}" for kind, count in votes.abstained.items())
        abstained = f"; {votes.abstained.total()} abstained ({kinds})" if kinds else ""
        reasons = "".join(f"; {reason}" for reason in votes.reasons)
        return say(f"{votes.accepted} of {len(reviewers)} accept, {quorum} are needed{abstained}{reasons}")

    return decide
